// Charts name the colours of the light theme; in the dark one each is replaced by its counterpart.
const DARK_COLOURS = JSON.parse(document.getElementById("dark-colours").textContent);
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function themed(text) {
  return isDark() ? text.replace(/"(#[0-9a-f]{6})"/gi, (whole, colour) => `"${DARK_COLOURS[colour.toLowerCase()] ?? colour}"`) : text;
}
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
  const { description } = JSON.parse(textContent);
  let drawn = 0;
  let view;
  const draw = () => {
    drawn = box.clientWidth;
    const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: showChartTip };
    vegaEmbed(box, fitted(themed(textContent), drawn), options).then((result) => {
      view = result.view;
      // The box is one picture with a text; its marks are further ones without.
      box.querySelector("svg").setAttribute("aria-hidden", "true");
      box.dispatchEvent(new CustomEvent("drawn", { detail: view }));
    });
  };
  draw();
  // A saved chart stands on the colour of the theme, where its ink can be read. One is saved at a time, or the first would take the
  // colour from under the second.
  let saving = Promise.resolve();
  const drawnOn = (paper, save) => {
    const saved = async () => {
      const before = view.background();
      view.background(paper);
      await save().finally(() => view.background(before));
    };
    return (saving = saving.then(saved, saved));
  };
  const paper = () => (isDark() ? DARK_COLOURS["#ffffff"] : "#ffffff");
  const saveSvg = async () => saveFile(await view.toSVG(), "image/svg+xml", `${fileStem(description)}.svg`);
  const savePng = async () => {
    const encoded = (await view.toImageURL("png", 2)).split(",")[1];
    saveFile(Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0)), "image/png", `${fileStem(description)}.png`);
  };
  toolsAfter(
    box.parentElement,
    tool("SVG", `Save as SVG: ${description}`, () => drawnOn(paper(), saveSvg)),
    tool("PNG", `Save as PNG: ${description}`, () => drawnOn(paper(), savePng)),
  );
  addEventListener("themechange", draw);
  let waiting;
  if (JSON.parse(textContent).usermeta?.fit) {
    addEventListener("resize", () => {
      clearTimeout(waiting);
      if (box.clientWidth !== drawn) waiting = setTimeout(draw, 120);
    });
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
