// The review of a sample. Data is inserted as text, never as markup.
"use strict";
(() => {
  const { sample, items } = JSON.parse(document.getElementById("sample").textContent);
  const FORMAT = "selfinstruct-review-labels";
  const KEPT = `selfinstruct-review:${sample}`;
  const NOT_KEPT = "This browser cannot store labels: save the file before you close the page.";
  const MOST_TRIES = 5;
  const QUESTIONS = ["instruction", "input", "output"];
  const find = (id) => document.getElementById(id);
  const groups = Object.fromEntries(
    [...document.querySelectorAll("[data-question]")].map((each) => [each.dataset.question, each]),
  );
  const fields = Object.fromEntries(
    [...document.querySelectorAll("[data-field]")].map((each) => [each.dataset.field, each]),
  );

  // A bare instruction has no instance, so only one question is asked.
  const asked = (item) => (item.output === null ? QUESTIONS.slice(0, 1) : QUESTIONS);
  const blank = (item) => Object.fromEntries(asked(item).map((each) => [each, null]));
  const state = {
    at: 0, keys: true, reader: "", answers: Object.fromEntries(items.map((item) => [item.id, blank(item)])), notes: {},
  };
  const undoing = [];
  let [current, isKept] = ["instruction", true];

  if (looksAgain()) return;

  const isAnswer = (value) => value === true || value === false;
  const isObject = (value) => typeof value === "object" && value !== null;
  const isFinished = (item) => Object.values(state.answers[item.id]).every(isAnswer);
  const firstOpen = (item) => asked(item).find((each) => !isAnswer(state.answers[item.id][each]));
  const finished = () => items.filter(isFinished).length;

  // Keeping, saving and opening labels

  // Merges the known parts of other labels and ignores the rest; if there are two notes, both are kept.
  function take(labels) {
    for (const item of items) {
      const given = isObject(labels.answers) ? labels.answers[item.id] : null;
      for (const question of asked(item)) {
        if (isObject(given) && isAnswer(given[question])) state.answers[item.id][question] = given[question];
      }
      const note = isObject(labels.notes) ? labels.notes[item.id] : "";
      const own = state.notes[item.id] || "";
      if (typeof note === "string" && note && !own.includes(note)) {
        state.notes[item.id] = own ? `${own}\n${note}` : note;
      }
    }
    if (typeof labels.reader === "string" && !state.reader) state.reader = labels.reader;
  }

  function keep() {
    try {
      localStorage.setItem(KEPT, JSON.stringify(state));
      isKept = true;
    } catch {
      isKept = false;
      say(NOT_KEPT, true);
    }
  }

  function restore() {
    let text = null;
    try {
      text = localStorage.getItem(KEPT);
      if (text === null) return;
      const kept = JSON.parse(text);
      take(kept);
      state.keys = kept.keys !== false;
      state.at = Number.isInteger(kept.at) && kept.at >= 0 && kept.at < items.length ? kept.at : 0;
    } catch {
      if (text !== null) localStorage.setItem(`${KEPT}:unreadable`, text);
      say(text === null ? NOT_KEPT : "The labels in this browser cannot be read; open a saved file to continue.", true);
    }
  }

  // Chromium gives about one in a hundred loads of a page from a file an empty storage of its own, which is lost at the
  // next load (seen in version 156). Data from an earlier load proves that the storage is the right one, so a page that
  // finds nothing stores something and reloads.
  function looksAgain() {
    if (location.protocol !== "file:") return false;
    try {
      const tries = (history.state && history.state.tries) || 0;
      const again = localStorage.getItem(KEPT) === null && tries < MOST_TRIES;
      if (again) localStorage.setItem(KEPT, "{}");
      history.replaceState(again ? { tries: tries + 1 } : null, "");
      if (again) location.reload();
      return again;
    } catch {
      return false; // nothing can be stored; reported when there is something to store
    }
  }

  const fileName = () => {
    const name = state.reader.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "reader";
    return `labels-${name}-${sample.slice(0, 8)}.json`;
  };

  function save() {
    const { reader, answers, notes } = state;
    const labels = { format: FORMAT, version: 1, sample, reader: reader.trim(), saved: new Date().toISOString(), answers, notes };
    const link = document.createElement("a");
    const address = URL.createObjectURL(new Blob([`${JSON.stringify(labels, null, 1)}\n`], { type: "application/json" }));
    link.href = address;
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    const named = reader.trim() ? "" : " The file has no reader's name: enter yours and save again if there are other readers.";
    say(`Saved ${link.download}: ${finished()} of ${items.length} finished.${named}`);
  }

  async function open(file) {
    let labels = null;
    try {
      labels = JSON.parse(await file.text());
    } catch {
      // reported below, as for any other file
    }
    if (!isObject(labels) || labels.format !== FORMAT || labels.version !== 1) {
      say(`${file.name} is not a labels file.`, true);
    } else if (labels.sample !== sample) {
      say(`${file.name} has labels of another sample.`, true);
    } else {
      const { at, answers } = structuredClone(state);
      undoing.push(() => Object.assign(state, { at, answers })); // notes are kept
      take(labels);
      const next = items.findIndex((item) => !isFinished(item));
      go(next < 0 ? state.at : next);
      say(`Opened ${file.name}: ${finished()} of ${items.length} finished.`);
    }
  }

  // Showing

  function say(text, trouble = false) {
    find("said").textContent = text;
    find("said").classList.toggle("trouble", trouble);
  }

  function language(text) {
    if (/[\p{Script=Hiragana}\p{Script=Katakana}]/u.test(text)) return "ja";
    return /\p{Script=Han}/u.test(text) ? "zh" : "";
  }

  function showText(field, text, absent) {
    const place = fields[field].querySelector(".text");
    place.textContent = text || absent;
    place.classList.toggle("absent", !text);
    place.lang = text ? language(text) : "en";
  }

  function show() {
    const item = items[state.at];
    showText("instruction", item.instruction, "empty");
    showText("input", item.input, "no input");
    showText("output", item.output, item.output === null ? "a bare instruction: only question 1 is asked" : "empty");
    fields.input.hidden = item.output === null;
    const words = {
      instruction: "Does the instruction describe a valid task?",
      input: item.input ? "Is the input appropriate for the instruction?" : "There is no input. Does the task need none?",
      output: "Is the output a correct and acceptable response?",
    };
    for (const question of QUESTIONS) {
      const group = groups[question];
      group.hidden = !asked(item).includes(question);
      group.querySelector("p span").textContent = words[question];
    }
    find("place").textContent = `Task ${state.at + 1} of ${items.length}`;
    find("previous").disabled = state.at === 0;
    find("next").disabled = state.at + 1 === items.length;
    find("note").value = state.notes[item.id] || "";
    showAnswers();
  }

  function showAnswers() {
    const item = items[state.at];
    for (const question of QUESTIONS) {
      const answer = state.answers[item.id][question];
      groups[question].classList.toggle("current", question === current);
      fields[question].classList.toggle("current", question === current);
      for (const button of groups[question].querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(String(answer) === button.dataset.answer));
      }
    }
    const count = finished();
    find("count").textContent = `${count} of ${items.length} finished`;
    find("progress").max = items.length;
    find("progress").value = count;
    find("reader").value = state.reader;
    find("single-keys").checked = state.keys;
    document.body.classList.toggle("keys-off", !state.keys);
    find("unfinished").disabled = count === items.length;
    find("undo").disabled = undoing.length === 0;
  }

  // Moving and answering

  function mark(question) {
    current = question;
    showAnswers();
    const field = fields[question];
    const bottom = innerHeight - (getComputedStyle(find("panel")).position === "sticky" ? find("panel").offsetHeight : 0);
    if (field.getBoundingClientRect().top > bottom - 40) field.scrollIntoView({ block: "start" });
  }

  function go(at) {
    if (at < 0 || at >= items.length) return;
    state.at = at;
    current = firstOpen(items[at]) || "instruction";
    show();
    keep();
    scrollTo(0, 0);
    find("place").focus({ preventScroll: true });
  }

  function goUnfinished() {
    const order = items.map((_, step) => (state.at + 1 + step) % items.length);
    const next = order.find((at) => !isFinished(items[at]));
    if (next === undefined) say("All tasks are finished. Save the labels.");
    else go(next);
  }

  function answer(question, value) {
    const item = items[state.at];
    const [at, before, wasFinished] = [state.at, state.answers[item.id][question], isFinished(item)];
    undoing.push(() => {
      state.answers[item.id][question] = before;
      state.at = at;
      return question;
    });
    state.answers[item.id][question] = value;
    say(`Task ${at + 1}, ${question}: ${value ? "yes" : "no"}`);
    const after = asked(item)[asked(item).indexOf(question) + 1];
    if (wasFinished) mark(after || question); // a correction stays on its task
    else if (!isFinished(item)) mark(isAnswer(state.answers[item.id][after]) || !after ? firstOpen(item) : after);
    else if (at + 1 < items.length) go(at + 1);
    else showAnswers();
    if (finished() === items.length) say("All tasks are finished. Save the labels.");
    else if (at + 1 === items.length && isFinished(item)) say("That was the last task; some earlier tasks are not finished.");
    keep();
  }

  function undo() {
    const last = undoing.pop();
    if (!last) {
      say("There is nothing to undo.");
      return;
    }
    const question = last();
    go(state.at);
    if (typeof question === "string") mark(question);
    say("Undone.");
  }

  function clear() {
    if (!confirm("Remove all labels and notes of this sample from this browser? Saved files are not removed.")) return;
    const before = structuredClone(state);
    undoing.push(() => Object.assign(state, before));
    Object.assign(state, { reader: "", answers: Object.fromEntries(items.map((item) => [item.id, blank(item)])), notes: {} });
    go(0);
    say("All labels are removed. Undo restores them until you close the page.");
  }

  const actions = {
    y: () => answer(current, true),
    n: () => answer(current, false),
    ArrowLeft: () => go(state.at - 1),
    ArrowRight: () => go(state.at + 1),
    u: undo,
    g: goUnfinished,
    m: () => find("note").focus(),
    s: save,
    o: () => find("file").click(),
  };
  QUESTIONS.forEach((question, at) => {
    actions[at + 1] = () => asked(items[state.at]).includes(question) && mark(question);
  });

  // On layouts without Latin letters, the physical key counts.
  function keyOf(event) {
    if (event.key.length > 1) return event.key;
    return /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : event.code.replace(/^(Key|Digit)/, "").toLowerCase();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
    if (event.target.matches("textarea, input[type=text]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = state.keys && Object.hasOwn(actions, keyOf(event)) && actions[keyOf(event)];
    if (!action) return;
    event.preventDefault();
    action();
  });
  for (const question of QUESTIONS) {
    for (const button of groups[question].querySelectorAll("button")) {
      button.addEventListener("click", () => answer(question, button.dataset.answer === "true"));
    }
  }
  const pressed = { previous: "ArrowLeft", next: "ArrowRight", undo: "u", unfinished: "g", save: "s", open: "o" };
  for (const [id, key] of Object.entries(pressed)) find(id).addEventListener("click", actions[key]);
  find("clear").addEventListener("click", clear);
  find("note").addEventListener("input", () => {
    state.notes[items[state.at].id] = find("note").value;
    keep();
  });
  find("reader").addEventListener("input", () => {
    state.reader = find("reader").value;
    keep();
  });
  find("more").addEventListener("submit", (event) => event.preventDefault());
  find("single-keys").addEventListener("change", () => {
    state.keys = find("single-keys").checked;
    showAnswers();
    keep();
  });
  find("file").addEventListener("change", async () => {
    const [file] = find("file").files;
    if (file) await open(file);
    find("file").value = "";
  });
  // Takes over labels from the same page in another tab, so that neither tab overwrites the other's labels.
  addEventListener("storage", (event) => {
    if (event.key !== KEPT || event.newValue === null) return;
    const { answers, notes, reader } = JSON.parse(event.newValue);
    if (!answers) return; // the other tab was only opened
    Object.assign(state, { answers, notes, reader });
    show();
  });

  addEventListener("beforeunload", (event) => {
    if (!isKept) event.preventDefault();
  });

  restore();
  current = firstOpen(items[state.at]) || "instruction";
  show();
})();
