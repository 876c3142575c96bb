// The theme switch and the export menu; both stay hidden without JavaScript.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;
// What scrolls aside can be scrolled from the keyboard; charts become wide only when they are drawn.
const scrolling = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".scroll, .bar nav")) scrolling.observe(box);
const themeSwitch = document.getElementById("theme");
if (themeSwitch) {
  themeSwitch.value = document.documentElement.dataset.theme ?? "auto";
  themeSwitch.addEventListener("change", () => {
    const theme = themeSwitch.value;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("theodolite-theme", theme);
    } catch {} // A browser may refuse storage to pages from disk.
    dispatchEvent(new Event("themechange"));
  });
}
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
function saveFile(data, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
// A tool under a table or a chart, made here since it needs JavaScript.
function tool(text, label, act) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}
function toolsAfter(element, ...buttons) {
  const box = Object.assign(document.createElement("div"), { className: "take" });
  box.append(...buttons);
  element.after(box);
}
const fileStem = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "file";
for (const button of document.querySelectorAll("[data-export]")) {
  button.addEventListener("click", async () => {
    const { textContent, dataset } = document.getElementById(button.dataset.export);
    saveFile(await unpacked(textContent.trim()), dataset.type, dataset.name);
  });
}
for (const menu of document.querySelectorAll("details.menu")) {
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
}
