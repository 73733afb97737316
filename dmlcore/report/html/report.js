"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MAX_PANELS = 6; // panels of a kind at once: each costs the browser about 50 ms
  const BASELINE = "#0072B2", VARIANT = "#D55E00", WORST = VARIANT, BEST = BASELINE;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const narrow = () => window.innerWidth < 640;
  const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const visible = (colour) => (colour === "#000000" ? cssColour("--ink") : colour); // black cannot be seen on a dark page

  function selected(form) {
    return all(`select[form=${form}]`).filter((s) => s.value).map((s) => [s.dataset.filter, s.value]);
  }
  // a filter leaves alone what does not have its name: the select of metrics hides no trial
  const matches = (names, filters) => filters.every(([name, value]) => !(name in names) || names[name] === value);

  function layout(extra) {
    const size = narrow() ? 11 : 12;
    const axis = { title: { font: { size } }, gridcolor: cssColour("--line"), zerolinecolor: cssColour("--line"), automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { color: cssColour("--ink"), family: "inherit", size }, dragmode: narrow() ? false : "zoom",
      margin: { l: 10, r: 10, t: 30, b: 10 }, xaxis: axis, yaxis: axis,
      hoverlabel: { align: "left", bgcolor: cssColour("--card"), bordercolor: cssColour("--line"), font: { color: cssColour("--ink") } },
    };
    // axes are merged with the defaults, every other setting replaces them
    for (const [key, value] of Object.entries(extra)) {
      base[key] = key.match(/axis/) ? { ...axis, ...value, title: { ...axis.title, ...value.title } } : value;
    }
    return base;
  }
  // react, not newPlot: a filter changes the plot in place and keeps its listeners
  const draw = (el, traces, extra) =>
    Plotly.react(el, traces, layout(extra), { responsive: true, displaylogo: false, displayModeBar: false });

  // plotly reads its texts as HTML; names that the page has not escaped (plot_text) pass through here
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const hover = (point) => point.lines.map((line, i) => (i ? escaped(line) : `<b>${escaped(line)}</b>`)).join("<br>");

  function traces(points) {
    const groups = new Map();
    for (const point of points) {
      const key = point.colour + point.symbol;
      groups.set(key, [...(groups.get(key) || []), point]);
    }
    return [...groups.values()].map((group) => ({
      type: "scatter", mode: "markers", x: group.map((p) => p.x), y: group.map((p) => p.y),
      error_x: bars(group, "dx"), error_y: bars(group, "dy"), customdata: group.map((p) => data.tradeoff.points.indexOf(p)),
      hovertext: group.map(hover), hoverinfo: "text",
      marker: { color: visible(group[0].colour), symbol: group[0].symbol, size: 11, line: { width: 2, color: visible(group[0].colour) } },
    }));
  }
  const bars = (group, name) => ({
    type: "data", array: group.map((p) => p[name] || 0), color: visible(group[0].colour), thickness: 1, width: 3, opacity: 0.6,
  });

  function front(points) {
    const best = points.filter((p) => p.front).sort((a, b) => a.x - b.x);
    return {
      type: "scatter", mode: "lines+markers", x: best.map((p) => p.x), y: best.map((p) => p.y), hoverinfo: "skip",
      line: { color: "rgba(128,128,128,0.35)", width: 7 }, marker: { color: "rgba(128,128,128,0.35)", size: 26 },
    };
  }

  function arrows(points) {
    const baselines = new Map(points.filter((p) => p.baseline).map((p) => [p.cell, p]));
    return points.filter((p) => !p.baseline && baselines.has(p.cell)).map((p) => ({
      x: p.x, y: p.y, ax: baselines.get(p.cell).x, ay: baselines.get(p.cell).y, xref: "x", yref: "y", axref: "x", ayref: "y",
      text: "", showarrow: true, arrowhead: 2, arrowsize: 1.3, arrowwidth: 1.6, arrowcolor: visible(p.colour), standoff: 8, startstandoff: 8,
    }));
  }

  function showDetail(point) {
    const box = document.getElementById("detail");
    box.replaceChildren(...point.lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    for (const [name, address] of point.runs) {
      const link = Object.assign(document.createElement("a"), { textContent: `MLflow run, ${name}`, href: address, rel: "noreferrer" });
      box.append(link, " ");
    }
  }

  function drawTradeoff(filters) {
    for (const figure of all("figure.tradeoff")) {
      const here = data.tradeoff.points.filter((p) => p.dataset === figure.dataset.dataset && matches(p, filters));
      figure.hidden = !matches(figure.dataset, filters) || (here.length === 0 && filters.length > 0);
      if (figure.hidden) continue;
      const el = figure.querySelector(".plot"), axes = data.tradeoff.axes;
      const several = all("figure.tradeoff").length > 1;
      draw(el, [front(here), ...traces(here)], {
        annotations: arrows(here), margin: { l: 10, r: 15, t: several ? 30 : 8, b: 10 },
        title: several ? { text: escaped(figure.dataset.dataset), font: { size: 14 } } : undefined,
        xaxis: { title: { text: `← more even: inconsistency between classes, ${axes.x}` } },
        yaxis: { title: { text: `accuracy, ${axes.y}: better →` } },
      });
      if (!el.dataset.ready) {
        el.dataset.ready = "yes";
        el.on("plotly_click", (event) => {
          const clicked = event.points.find((p) => p.customdata !== undefined); // the front has none
          if (clicked) showDetail(data.tradeoff.points[clicked.customdata]);
        });
      }
    }
  }

  function utilityTraces(variant, i) {
    const x = `x${i ? i + 1 : ""}`, y = `y${i ? i + 1 : ""}`, ink = variant.baseline ? BASELINE : VARIANT;
    if (variant.missing) return [];
    const edge = { type: "scatter", mode: "lines", x: variant.thresholds, xaxis: x, yaxis: y, line: { width: 0, color: ink } };
    return [
      { ...edge, y: variant.low, hoverinfo: "skip" },
      { ...edge, y: variant.high, fill: "tonexty", fillcolor: ink + "4d", hoverinfo: "skip" },
      {
        ...edge, y: variant.mean, line: { width: 2, color: ink }, hoverinfo: "text",
        hovertext: variant.thresholds.map((t, k) => `threshold ${t.toFixed(3)}<br>utility ${variant.mean[k].toFixed(3)}<br>` +
          `10 % to 90 % of classes: ${variant.low[k].toFixed(3)} to ${variant.high[k].toFixed(3)}`),
      },
    ];
  }

  // one figure a cell, up to MAX_PANELS of them; `note` says how many more there are
  function drawCells(id, note, found, filters, drawOne) {
    const box = document.getElementById(id);
    if (!box) return;
    const cells = found.filter((cell) => matches(cell, filters));
    all(".plot", box).forEach((el) => Plotly.purge(el)); // else plotly keeps what it drew in elements that are gone
    box.replaceChildren(...cells.slice(0, MAX_PANELS).map((cell) => {
      const figure = Object.assign(document.createElement("figure"), { className: "panel" });
      const heading = Object.assign(document.createElement("h3"), { textContent: cell.title });
      figure.append(heading, Object.assign(document.createElement("div"), { className: "plot" }));
      return figure;
    }));
    all(".plot", box).forEach((el, i) => drawOne(el, cells[i]));
    const rest = cells.length - MAX_PANELS;
    document.getElementById(note).textContent = rest > 0 ? `${rest} more: choose a data set, backbone or loss above.` : "";
  }

  const COLOURS = [VARIANT, "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

  function drawPaths(el, cell) {
    el.style.height = "19rem";
    el.setAttribute("role", "img");
    el.setAttribute("aria-label", `inconsistency against accuracy while training, ${cell.title}`);
    let others = 0;
    const traces = cell.variants.flatMap((variant) => {
      const ink = variant.baseline ? BASELINE : COLOURS[others++ % COLOURS.length];
      const line = { type: "scatter", mode: "lines", x: variant.accuracy, line: { width: 0, color: ink }, showlegend: false };
      return [
        { ...line, y: variant.low, hoverinfo: "skip" },
        { ...line, y: variant.high, fill: "tonexty", fillcolor: ink + "33", hoverinfo: "skip" },
        {
          ...line, y: variant.mean, line: { width: 2, color: ink }, name: variant.heading, showlegend: true, hoverinfo: "text",
          hovertext: variant.accuracy.map((a, k) => `${variant.heading}<br>MAP@R ${a.toFixed(3)}<br>OPIS corr. ${variant.mean[k].toFixed(5)}`),
        },
        {
          ...line, x: variant.end_accuracy, y: variant.end_opis, mode: "markers", hoverinfo: "skip",
          marker: { size: 9, color: ink, symbol: "circle-open", line: { width: 2 } },
        },
      ];
    });
    const ticks = [-4, -3, -2, -1].flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
    // what is at or below 0 cannot be drawn on a logarithmic axis
    const positive = cell.variants.every((v) => v.low.every((value) => value > 0) && v.end_opis.every((value) => value > 0));
    draw(el, traces, {
      showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { l: 10, r: 10, t: 42, b: 10 },
      xaxis: { rangemode: "tozero", title: { text: "accuracy: MAP@R on validation" } },
      yaxis: { title: { text: "OPIS corr. on validation" }, ...(positive ? { type: "log", tickvals: ticks, ticktext: ticks.map(String) } : {}) },
    });
  }

  function drawCell(el, cell) {
    const columns = narrow() ? 1 : Math.min(2, cell.variants.length), rows = Math.ceil(cell.variants.length / columns);
    el.style.height = `${17 * rows}rem`;
    el.setAttribute("role", "img");
    el.setAttribute("aria-label", `utility against threshold, ${cell.title}`);
    const extra = { grid: { rows, columns, pattern: "independent", ygap: 0.35 }, shapes: [], annotations: [], margin: { l: 10, r: 10, t: narrow() ? 42 : 30, b: 10 } };
    const ends = cell.variants.flatMap((v) => (v.missing ? [] : [v.thresholds[0], v.thresholds.at(-1)]));
    cell.variants.forEach((variant, i) => {
      const n = i ? i + 1 : "", place = { xref: `x${n} domain`, yref: `y${n} domain`, showarrow: false };
      extra[`xaxis${n}`] = { range: [Math.min(...ends), Math.max(...ends)], title: { text: "threshold: L2 distance of unit-length embeddings" } };
      extra[`yaxis${n}`] = { range: [0, 1.02], title: { text: i % columns ? "" : "utility" } };
      extra.annotations.push({ ...place, x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", align: "left", text: `<b>${variant.heading}</b>${narrow() ? "<br>" : " "}${variant.note || ""}` });
      if (variant.missing) extra.annotations.push({ ...place, x: 0.5, y: 0.5, text: variant.missing });
      else extra.shapes.push({
        type: "rect", xref: `x${n}`, yref: `y${n} domain`, x0: variant.span[0], x1: variant.span[1], y0: 0, y1: 1,
        fillcolor: "rgba(128,128,128,0.15)", line: { width: 0 }, layer: "below",
      });
    });
    draw(el, cell.variants.flatMap(utilityTraces), extra);
  }

  function drawHeatMaps(filters) {
    const box = document.getElementById("heat-maps");
    if (!box) return;
    const shown = data.heat_maps.filter((map) => matches(map, filters));
    box.replaceChildren(...shown.map(() => Object.assign(document.createElement("div"), { className: "plot" })));
    all(".plot", box).forEach((el, i) => drawHeatMap(el, shown[i]));
  }

  function drawHeatMap(el, map) {
    el.setAttribute("role", "img");
    el.setAttribute("aria-label", map.title);
    const frame = map.chosen && {
      type: "rect", x0: map.chosen[0] - 0.5, x1: map.chosen[0] + 0.5, y0: map.chosen[1] - 0.5, y1: map.chosen[1] + 0.5,
      line: { color: VARIANT, width: 4 },
    };
    draw(el, [{
      type: "heatmap", x: map.x, y: map.y, z: map.z, text: map.text, texttemplate: "%{text}", hoverinfo: "x+y+text",
      colorscale: "Cividis", reversescale: map.low_is_good, showscale: false,
    }], {
      title: { text: `${escaped(map.title)}<br>${map.baseline}`, font: { size: 12 } }, margin: { l: 10, r: 5, t: 45, b: 10 },
      shapes: frame ? [frame] : [],
      xaxis: { type: "category", title: { text: "positive margin" } }, yaxis: { type: "category", title: { text: "negative margin" } },
    });
  }

  function drawMap() {
    const el = document.getElementById("map");
    if (!el || !data.map) return;
    const columns = narrow() ? 1 : 2, rows = 2 / columns;
    const extra = { grid: { rows, columns, pattern: "independent", ygap: 0.25 }, annotations: [], margin: { l: 10, r: 10, t: 50, b: 10 } };
    const points = data.map.trials.flatMap((trial, i) => {
      const n = i ? 2 : "", axes = { type: "scatter", mode: "markers", xaxis: `x${n}`, yaxis: `y${n}`, hoverinfo: "text" };
      extra[`xaxis${n}`] = {};
      extra[`yaxis${n}`] = { scaleanchor: `x${n}` };
      extra.annotations.push({
        xref: `x${n} domain`, yref: `y${n} domain`, x: 0, y: 1.02, yanchor: "bottom", xanchor: "left", showarrow: false, align: "left", text: trial.heading,
      });
      const rest = { ...axes, ...trial.others, hoverinfo: "skip", marker: { size: 3, color: "rgba(128,128,128,0.45)" } };
      return [rest, ...trial.groups.map((group) => ({
        ...axes, x: group.x, y: group.y, hovertext: group.name,
        marker: { size: 8, symbol: group.symbol, color: group.kind === "worst" ? WORST : BEST, line: { width: 0.5, color: cssColour("--paper") } },
      }))];
    });
    draw(el, points, extra);
  }

  function filterRows() {
    const filters = selected("filters");
    for (const [table, form] of [["comparisons", "metrics"], ["trials", "statuses"]]) {
      const here = [...filters, ...selected(form)];
      all(`#${table} tbody tr`).forEach((row) => { row.hidden = !matches(row.dataset, here); });
    }
    const points = data.tradeoff.points, shown = points.filter((p) => matches(p, filters)).length;
    document.getElementById("shown").textContent = `${shown} of ${points.length} configurations shown`;
    return filters;
  }

  function update() {
    const filters = filterRows();
    drawTradeoff(filters);
    drawCells("trajectories", "more-trajectories", data.trajectories, filters, drawPaths);
    drawCells("utility", "more", data.utility, filters, drawCell);
    drawHeatMaps(filters);
  }

  function sortBy(table, column, heading) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    all("th", table).forEach((th) => th.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // unknown is always last
      const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return (down ? -1 : 1) * (numbers ? x - y : x < y ? -1 : x > y ? 1 : 0);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  }

  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((heading, i) => {
      heading.querySelector("button").addEventListener("click", () => sortBy(table, i, heading));
    });
  }
  const form = document.getElementById("filters");
  all("select[form=filters]").forEach((select) => select.addEventListener("change", update));
  form.addEventListener("reset", () => setTimeout(update)); // the event comes before the selects are empty
  form.addEventListener("submit", (event) => event.preventDefault());
  all("select[form=metrics], select[form=statuses]").forEach((select) => select.addEventListener("change", filterRows));
  const redraw = () => { update(); drawMap(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 640px)").addEventListener("change", redraw);
  redraw();
  document.documentElement.dataset.ready = "yes";
})();
