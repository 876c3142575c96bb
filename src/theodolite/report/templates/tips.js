// A tip stands beside what it explains, never on it, and within the window where there is room.
const TIP_GAP = 8; // pixels
function placeBeside(tip, mark) {
  const { width, height } = tip.getBoundingClientRect();
  const [across, down] = [document.documentElement.clientWidth, innerHeight];
  const within = (at, size, room) => Math.max(0, Math.min(at, room - size));
  const left = within((mark.left + mark.right - width) / 2, width, across);
  const top = within((mark.top + mark.bottom - height) / 2, height, down);
  const [above, below] = [mark.top - TIP_GAP - height, mark.bottom + TIP_GAP];
  const [before, behind] = [mark.left - TIP_GAP - width, mark.right + TIP_GAP];
  const places = [
    { left, top: above, room: above },
    { left, top: below, room: down - below - height },
    { left: behind, top, room: across - behind - width },
    { left: before, top, room: before },
  ];
  const place = places.find(({ room }) => room >= 0) ?? places.sort((one, other) => other.room - one.room)[0];
  tip.style.left = `${place.left}px`;
  tip.style.top = `${place.top}px`;
}
// The tip of all charts: Vega gives what it says about the item under the pointer, or nothing. A line or an area has no middle to stand
// beside, so there it stands beside the pointer.
const chartTip = element("dl", { class: "chart-tip", "aria-hidden": "true" });
chartTip.hidden = true;
document.body.append(chartTip);
function showChartTip(_, event, item, value) {
  chartTip.hidden = !value;
  if (!value) return;
  const lines = Object.entries(typeof value === "object" ? value : { "": value }).filter(([, text]) => text !== "");
  chartTip.replaceChildren(...lines.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, String(text))]));
  const { clientX: x, clientY: y } = event;
  const hasMiddle = !["line", "area", "trail", "group"].includes(item.mark.marktype);
  placeBeside(chartTip, hasMiddle ? event.target.getBoundingClientRect() : { left: x, right: x, top: y, bottom: y });
}
