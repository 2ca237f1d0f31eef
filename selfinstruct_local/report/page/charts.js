// Draws the charts of the page from its statistics. Labels are data: Plotly interprets some markup in them, so it is escaped.
"use strict";
(() => {
  const reports = JSON.parse(document.getElementById("figures").textContent);
  const light = { text: "#1b1e23", soft: "#5a616c", line: "#d9dce1", ground: "#ffffff", accent: "#1f5fa8" };
  const dark = { text: "#e6e8eb", soft: "#a2a9b4", line: "#363b43", ground: "#15171a", accent: "#79b0ee" };
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const LONGEST_LABEL = 24;

  const label = (text) => {
    const short = [...text].slice(0, LONGEST_LABEL).join("") + ([...text].length > LONGEST_LABEL ? "…" : "");
    return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%&#123;");
  };
  const shares = (counts) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return counts.map((count) => (total ? count / total : 0));
  };
  // The highest share of any source, so that a chart has the same scale for all sources.
  const highest = (pick) => Math.max(...reports.map((report) => Math.max(0, ...pick(report))));
  const mixed = (colour, ground, part) => {
    const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const to = parts(ground);
    return `rgb(${parts(colour).map((value, at) => Math.round(value * part + to[at] * (1 - part))).join(",")})`;
  };

  function axes(colours, x, y) {
    const axis = { gridcolor: colours.line, linecolor: colours.soft, zeroline: false, fixedrange: true, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 10, t: 10, b: 40 },
      font: { family: "system-ui, sans-serif", size: 12, color: colours.soft }, showlegend: false, bargap: 0.06,
      hoverlabel: { font: { family: "system-ui, sans-serif" } },
      xaxis: { ...axis, showgrid: false, ...x }, yaxis: { ...axis, rangemode: "tozero", nticks: 5, ...y },
    };
  }

  function sunburst(figures, _part, colours) {
    const ids = [], labels = [], parents = [], values = [], fills = [], told = [];
    const sum = (each) => each.nouns.reduce((total, [, count]) => total + count, 0);
    const verbs = [...figures.verbs.commonest].sort((one, other) => sum(other) - sum(one));
    verbs.forEach((each, rank) => {
      const shade = 0.95 - (0.5 * rank) / verbs.length;
      ids.push(`${rank}`); labels.push(label(each.verb)); parents.push(""); values.push(sum(each));
      told.push(`${each.count.toLocaleString("en")} with any object`);
      fills.push(mixed(colours.accent, colours.ground, shade));
      each.nouns.forEach(([noun, count], at) => {
        ids.push(`${rank}-${at}`); labels.push(label(noun)); parents.push(`${rank}`); values.push(count);
        told.push(count.toLocaleString("en"));
        fills.push(mixed(colours.accent, colours.ground, shade * 0.55));
      });
    });
    const trace = {
      type: "sunburst", ids, labels, parents, values, branchvalues: "total", sort: false, leaf: { opacity: 1 },
      marker: { colors: fills, line: { color: colours.ground, width: 1 } }, insidetextorientation: "radial",
      customdata: told, hovertemplate: "%{label}: %{customdata}<extra></extra>",
    };
    return [[trace], { ...axes(colours), margin: { l: 0, r: 0, t: 8, b: 8 }, uniformtext: { minsize: 9, mode: "hide" } }];
  }

  function histogram(counts, width, colours, xTitle, top, lastOpen) {
    const middles = counts.map((_, at) => (at + 0.5) * width);
    const digits = width < 1 ? 3 : 0;
    const names = counts.map((_, at) => {
      const from = (at * width).toFixed(digits);
      return lastOpen && at === counts.length - 1 ? `${from} or more` : `${from} to ${((at + 1) * width).toFixed(digits)}`;
    });
    const trace = {
      type: "bar", x: middles, y: shares(counts), width: width * 0.94, marker: { color: colours.accent },
      customdata: counts.map((count, at) => [names[at], count]),
      hovertemplate: "%{customdata[0]}: %{customdata[1]:,} (%{y:.1%})<extra></extra>",
    };
    const layout = axes(colours, { title: { text: xTitle, standoff: 6 } }, { tickformat: ".0~%", range: [0, top * 1.05 || 1] });
    return [[trace], layout];
  }

  function scores(figures, part, colours) {
    const pick = (report) => (report[part] ? shares(report[part].histogram.counts) : []);
    const { counts, width } = figures[part].histogram;
    const [traces, layout] = histogram(counts, width, colours, "ROUGE-L F", highest(pick), false);
    layout.xaxis.range = [0, 1];
    layout.shapes = [{
      type: "line", x0: figures.threshold, x1: figures.threshold, y0: 0, y1: 1, yref: "paper",
      line: { color: colours.text, width: 1, dash: "dot" },
    }];
    return [traces, layout];
  }

  function lengths(figures, part, colours) {
    const alike = (report) => report.unit === figures.unit;
    const pick = (report) => (alike(report) ? shares(report.lengths[part].histogram.counts) : []);
    const { counts, width, open_ended: open } = figures.lengths[part].histogram;
    const [traces, layout] = histogram(counts, width, colours, figures.unit, highest(pick), open);
    const bins = Math.max(...reports.filter(alike).map((report) => report.lengths[part].histogram.counts.length));
    layout.xaxis.range = [0, bins * width];
    return [traces, layout];
  }

  function line(figures, values, colours, yTitle, y) {
    const first = figures.kind === "run" ? 0 : 1;
    const trace = {
      type: "scatter", mode: "lines+markers", x: figures.course.map((step) => (step.first + step.last) / 2 + first),
      y: values, line: { color: colours.accent, width: 2 }, marker: { size: 4 }, connectgaps: false,
      customdata: figures.course.map((step) => `${step.first + first} to ${step.last + first}`),
      hovertemplate: "%{customdata}: %{y:.2f}<extra></extra>",
    };
    const unit = figures.kind === "run" ? "job" : "row";
    const x = { title: { text: unit, standoff: 6 }, rangemode: "tozero" };
    return [[trace], axes(colours, x, { title: { text: yTitle, standoff: 6 }, ...y })];
  }

  const yieldOf = (figures) => figures.course.map((step) => step.accepted_per_1000_tokens);
  const kinds = {
    sunburst, scores, lengths,
    yield: (figures, _part, colours) =>
      line(figures, yieldOf(figures), colours, "accepted", { range: [0, highest(yieldOf) * 1.08 || 1] }),
    nearest: (figures, _part, colours) =>
      line(figures, figures.course.map((step) => step.median_nearest), colours, "ROUGE-L F", { range: [0, 1] }),
  };

  function drawAll(colours, only) {
    document.querySelectorAll(".chart").forEach((place) => {
      const { chart, part, source } = place.dataset;
      const [traces, layout] = kinds[chart](reports[Number(source)], part, colours);
      Plotly.react(place, traces, { ...layout, ...only }, { displayModeBar: false, responsive: true });
    });
  }

  const draw = () => drawAll(prefersDark.matches ? dark : light, {});
  draw();
  prefersDark.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => drawAll(light, {}));
  window.addEventListener("afterprint", draw);
})();
