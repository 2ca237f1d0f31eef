// The table of tasks, with search, sorting and paging. Data is inserted as text, never as markup.
"use strict";
(() => {
  const PAGE = 50;
  const LONG = 320;
  const LINES = 7;
  const sources = JSON.parse(document.getElementById("tasks-data").textContent);
  const find = (id) => document.getElementById(id);
  const [query, verdict, source] = [find("query"), find("verdict"), find("source")];
  const body = document.querySelector("#rows tbody");
  const heads = [...document.querySelectorAll("#rows thead th")];
  const joined = (row, at) => (row.cases || []).map((each) => each[at]).filter(Boolean).join("\n\n");

  const rows = sources.flatMap((each, number) =>
    each.rows.map((row) => {
      const [input, output] = [joined(row, 0), joined(row, 1)];
      const instruction = row.instruction || "";
      const searched = [instruction, input, output, row.rule, row.detail].filter(Boolean).join("\n").toLowerCase();
      return { ...row, instruction, input, output, searched, number, source: each.name };
    }),
  );
  let [chosen, page, key, down] = [rows, 0, "", false];

  function element(name, text, ...classes) {
    const made = document.createElement(name);
    made.classList.add(...classes);
    made.textContent = text;
    return made;
  }

  function cell(line, head, ...parts) {
    const made = element("td", "", head.dataset.key);
    made.dataset.label = head.textContent;
    made.append(...parts.filter(Boolean));
    line.append(made);
  }

  const clipped = (text) => text && element("bdi", text, "text", "clip");
  const isLong = (text) => text.length > LONG || text.split("\n").length > LINES;
  const makers = {
    source: (row) => [element("bdi", row.source)],
    instruction: (row) => [element("bdi", row.id, "id"), clipped(row.instruction)],
    input: (row) => [clipped(row.input)],
    output: (row) => [clipped(row.output)],
    rule: (row) => [element("bdi", row.rule || "kept"), row.detail && element("bdi", row.detail, "text", "detail", "clip")],
    score: (row) => [
      row.score !== undefined && element("span", `${row.score.toFixed(3)} `), row.neighbor && element("bdi", row.neighbor, "id"),
    ],
    job: (row) => [
      row.profile && element("bdi", `${row.profile}, job ${row.job}`),
      row.shown && element("bdi", `few-shot examples: ${row.shown.join(", ")}`, "detail", "clip"),
    ],
  };

  function line(row) {
    const made = document.createElement("tr");
    if (row.rule) made.classList.add("rejected");
    for (const head of heads) {
      const parts = makers[head.dataset.key](row).filter(Boolean);
      cell(made, head, ...parts.flatMap((part, at) => (at ? [document.createElement("br"), part] : [part])));
    }
    if ([row.instruction, row.input, row.output].some(isLong)) {
      const more = element("button", "more", "more");
      more.type = "button";
      more.setAttribute("aria-expanded", "false");
      more.addEventListener("click", () => {
        const open = made.classList.toggle("open");
        more.textContent = open ? "less" : "more";
        more.setAttribute("aria-expanded", String(open));
      });
      made.querySelector("td.instruction").append(more);
    }
    return made;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    body.replaceChildren(...chosen.slice(page * PAGE, (page + 1) * PAGE).map(line));
    const format = (number) => number.toLocaleString("en");
    find("found").textContent = `${format(chosen.length)} of ${format(rows.length)} rows`;
    find("page").textContent = `page ${format(page + 1)} of ${format(pages)}`;
    find("before").disabled = page === 0;
    find("after").disabled = page + 1 >= pages;
  }

  // Rows without a value come last in both directions.
  function compare(one, other) {
    const [a, b] = [one[key], other[key]];
    if ((a ?? "") === "" || (b ?? "") === "") return ((a ?? "") === "") - ((b ?? "") === "");
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
    return down ? -order : order;
  }

  function choose() {
    const wanted = query.value.trim().toLowerCase();
    chosen = rows.filter(
      (row) =>
        row.searched.includes(wanted) &&
        (!verdict.value || (verdict.value === "rejected") === Boolean(row.rule)) &&
        (!source || !source.value || row.number === Number(source.value)),
    );
    if (key) chosen.sort(compare);
    page = 0;
    show();
  }

  heads.forEach((head) =>
    head.addEventListener("click", () => {
      [key, down] = [head.dataset.key, key === head.dataset.key && !down];
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      choose();
    }),
  );
  find("search").addEventListener("submit", (event) => event.preventDefault());
  [query, verdict, source].filter(Boolean).forEach((control) => control.addEventListener("input", choose));
  const turn = (by) => () => {
    page += by;
    show();
    find("found").scrollIntoView();
  };
  find("before").addEventListener("click", turn(-1));
  find("after").addEventListener("click", turn(1));
  show();
})();
