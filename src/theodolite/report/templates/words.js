// Words over the vision tokens of a picture: which lens, site and factor is chosen by the controls above the grid.
function wordGrid(box) {
  const data = JSON.parse(document.getElementById(box.dataset.words).textContent);
  const lens = element("select", { "aria-label": "lens" }, ...data.lenses.map((each, number) => element("option", { value: number }, each.heading)));
  const sites = data.lenses[0].sites.map((each) => each.site);
  const last = sites.length - 1;
  const slider = element("input", { type: "range", min: 0, max: last, value: Math.floor(last / 2), "aria-label": "site" });
  const site = element("output", {});
  const factors = Object.entries(data.values);
  const factor = element(
    "select",
    { "aria-label": "marked tokens" },
    element("option", { value: "" }, "any of its values"),
    ...factors.map(([name, value]) => element("option", { value: name }, `${name}: ${value}`)),
  );
  const count = element("small", {});
  const tip = element("div", { class: "word-tip", role: "status" });
  tip.hidden = true;
  const cells = [];
  const grids = data.grids.map((grid, number) => {
    const columns = 1 + Math.max(...grid.map(([, , column]) => column));
    const rows = 1 + Math.max(...grid.map(([, row]) => row));
    const drawn = element("div", { class: data.picture ? "word-grid over" : "word-grid" });
    drawn.style.setProperty("--columns", columns);
    drawn.style.setProperty("--rows", rows);
    if (data.picture) drawn.style.backgroundImage = `url(${data.picture})`;
    for (const [token, row, column] of grid) {
      const cell = element("span", { "data-token": token });
      cell.style.gridArea = `${row + 1} / ${column + 1}`;
      cells[token] = { cell, row, column, number };
      drawn.append(cell);
    }
    return element("div", { class: "scroll" }, drawn);
  });
  const chosen = () => data.lenses[lens.value].sites[slider.value];
  const marks = () => Object.entries(chosen().named).filter(([name]) => factor.value === "" || factor.value === name);
  const draw = () => {
    const shown = chosen();
    const marked = new Set(marks().flatMap(([, tokens]) => tokens));
    cells.forEach(({ cell }, token) => {
      cell.textContent = shown.words[token].split(" ")[0];
      cell.classList.toggle("named", marked.has(token));
    });
    site.textContent = shown.site;
    count.textContent = `${marked.size} of ${cells.length} tokens marked`;
    tip.hidden = true;
  };
  const explain = (event) => {
    const token = event.target.dataset?.token;
    if (token === undefined) return;
    const { cell, row, column, number } = cells[token];
    const shown = chosen();
    const named = Object.entries(shown.named).filter(([, tokens]) => tokens.includes(Number(token)));
    const place = `${data.grids.length > 1 ? `view ${number + 1}, ` : ""}row ${row + 1}, column ${column + 1}`;
    const lines = [element("ol", {}, ...shown.words[token].split(" ").map((word) => element("li", {}, word)))];
    lines.push(element("small", {}, `${data.lenses[lens.value].strength}: ${shown.strength[token].toFixed(2)}`));
    for (const [name] of named) lines.push(element("small", { class: "said" }, `names ${name}: ${data.values[name]}`));
    tip.replaceChildren(element("b", {}, place), ...lines);
    tip.hidden = false;
    placeBeside(tip, cell.getBoundingClientRect());
  };
  for (const control of [lens, slider, factor]) control.addEventListener("input", draw);
  box.addEventListener("mouseover", explain);
  box.addEventListener("mouseleave", () => (tip.hidden = true));
  const labelled = (text, ...controls) => element("label", {}, text, ...controls);
  const controls = [labelled("lens ", lens), labelled("site ", slider, site), labelled("marked: tokens that name ", factor), count];
  box.append(element("div", { class: "word-controls" }, ...controls), ...grids, tip);
  draw();
}
document.querySelectorAll("[data-words]").forEach(wordGrid);
