// Panels of a facet share the page's width; charts that can be fitted have their sizes in pixels in `usermeta.fit`.
function fitted(text, width) {
  const spec = JSON.parse(text);
  const sizes = spec.usermeta?.fit;
  if (sizes && width > 0) {
    spec.columns = Math.max(1, Math.min(sizes.most.length, Math.floor((width - sizes.axis) / (sizes.least + sizes.between))));
    const most = sizes.most[spec.columns - 1];
    spec.spec.width = Math.max(sizes.least, Math.min(most, Math.floor((width - sizes.axis) / spec.columns) - sizes.between));
    spec.config.legend.columns = Math.max(1, Math.floor((width - sizes.axis) / sizes.entry));
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
