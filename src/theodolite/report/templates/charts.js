// Panels of a facet share the width that there is; a chart that can be fitted says how in `usermeta`.
function fitted(text, wide) {
  const spec = JSON.parse(text);
  const told = spec.usermeta?.fit;
  if (told && wide > 0) {
    spec.columns = Math.max(1, Math.min(told.most.length, Math.floor((wide - told.beside) / (told.least + told.between))));
    const most = told.most[spec.columns - 1];
    spec.spec.width = Math.max(told.least, Math.min(most, Math.floor((wide - told.beside) / spec.columns) - told.between));
    spec.config.legend.columns = Math.max(1, Math.floor((wide - told.beside) / told.entry));
  }
  return spec;
}
for (const box of document.querySelectorAll("[data-spec]")) {
  const { textContent } = document.getElementById(box.dataset.spec);
  let drawn = 0;
  const draw = () => {
    drawn = box.clientWidth;
    vegaEmbed(box, fitted(textContent, drawn), { mode: "vega-lite", renderer: "svg", actions: false });
  };
  draw();
  let waiting;
  if (JSON.parse(textContent).usermeta?.fit) {
    addEventListener("resize", () => {
      clearTimeout(waiting);
      if (box.clientWidth !== drawn) waiting = setTimeout(draw, 120);
    });
  }
}
