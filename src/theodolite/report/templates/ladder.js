// A factor is pinned in all ladders of the page by its button or its line, and released by the same; #inside?pin=colour says so.
const pinButtons = [...document.querySelectorAll("[data-pin]")];
const ladders = [...document.querySelectorAll(".ladder [data-spec]")].map((box) => ({ box, view: null }));
let [pinned, hovered] = ["", ""];
function showPins() {
  const shown = hovered || pinned;
  for (const { box, view } of ladders) {
    const own = box.closest("[data-group]");
    for (const line of own.querySelectorAll("[data-ladder]")) line.classList.toggle("pinned", line.dataset.ladder === shown);
    const button = [...own.querySelectorAll("[data-pin]")].find(({ dataset }) => dataset.pin === shown);
    view?.signal("pinned", button?.dataset.panel ?? "").run();
  }
  for (const button of pinButtons) button.setAttribute("aria-pressed", button.dataset.pin === pinned);
}
function hover(factor) {
  if (factor === hovered) return;
  hovered = factor;
  showPins();
}
function togglePin(factor) {
  pinned = factor === pinned ? "" : factor;
  hovered = ""; // what is released shows it, though the pointer is still there
  history.pushState(null, "", pinned ? `#inside?pin=${encodeURIComponent(pinned)}` : "#inside");
  showPins();
}
// An address of another part of the page leaves the pin.
function followPin() {
  const [part, query] = location.hash.split("?");
  if (part && part !== "#inside") return;
  pinned = new URLSearchParams(query?.replaceAll("+", "%2B")).get("pin") ?? "";
  showPins();
  if (pinned) pinButtons.find(({ dataset }) => dataset.pin === pinned)?.scrollIntoView({ block: "center" });
}
for (const button of pinButtons) {
  const { pin } = button.dataset;
  button.addEventListener("click", () => togglePin(pin));
  button.addEventListener("mouseenter", () => hover(pin));
  button.addEventListener("mouseleave", () => hover(""));
}
for (const ladder of ladders) {
  const own = [...ladder.box.closest("[data-group]").querySelectorAll("[data-pin]")];
  const factorOf = (item) => own.find(({ dataset }) => dataset.panel === item?.datum?.panel)?.dataset.pin ?? "";
  ladder.box.addEventListener("drawn", ({ detail: view }) => {
    ladder.view = view;
    view.addEventListener("mouseover", (_, item) => hover(factorOf(item)));
    view.addEventListener("mouseout", () => hover(""));
    view.addEventListener("click", (_, item) => factorOf(item) && togglePin(factorOf(item)));
    showPins();
  });
}
addEventListener("hashchange", followPin);
followPin();
