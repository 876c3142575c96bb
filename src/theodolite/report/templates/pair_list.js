// The filtered list of pairs: its state is in the address (#pairs?factor=...), and only the cards in sight are in the document.
const CONDITIONS = ["factor", "question", "outcome", "model", "kind", "sort", "text", "disagree"];
const SORT_WORDS = { worst: "worst first", change: "largest change first", scene: "scene", row: "as in the rows" };
const AHEAD = 600; // pixels of cards that are ready above and below the sight
const LEAST_CARD = 380;
const GAP = 18;

function readAddress(hash) {
  if (!/^#pairs(\?|$)/.test(hash)) return null;
  const given = new URLSearchParams(hash.slice("#pairs?".length).replaceAll("+", "%2B"));
  return Object.fromEntries(CONDITIONS.filter((name) => given.has(name)).map((name) => [name, given.get(name)]));
}
function writeAddress(state) {
  const parts = CONDITIONS.filter((name) => state[name]).map((name) => `${name}=${encodeURIComponent(state[name]).replaceAll("%2C", ",")}`);
  return parts.length ? `#pairs?${parts.join("&")}` : "#pairs";
}

// The pairs that meet all conditions, in order, and how many of those that meet the others have each outcome.
function matchingPairs(rows, state) {
  const model = state.model ? rows.models.indexOf(state.model) : -1;
  const kind = state.kind ?? "intervention";
  const outcomes = state.outcome ? new Set(state.outcome.split(",")) : null;
  const text = (state.text ?? "").trim().toLowerCase();
  const counts = {};
  const matches = [];
  for (let pair = 0; pair < rows.size; pair += 1) {
    if (rows.text.kind(pair) !== kind) continue;
    if (state.factor && rows.text.factor(pair) !== state.factor) continue;
    const query = rows.text.query(pair);
    if (state.question && state.question !== query && state.question !== `${query} (${rows.text.form(pair)})`) continue;
    const asked = rows.asked(pair);
    if (state.model && !asked.includes(model)) continue;
    if (state.disagree && !rows.disagree(pair)) continue;
    if (text && !rows.searched(pair).includes(text)) continue;
    const own = new Set((model < 0 ? asked : [model]).map((each) => rows.reply(pair, each).outcome));
    for (const outcome of own) counts[outcome] = (counts[outcome] ?? 0) + 1;
    if (!outcomes || [...own].some((outcome) => outcomes.has(outcome))) matches.push(pair);
  }
  return { matches: sortedPairs(rows, matches, state.sort ?? "worst", model), counts };
}
function sortedPairs(rows, pairs, sort, model) {
  if (sort === "row") return pairs;
  if (sort === "scene") {
    const order = new Intl.Collator("en", { numeric: true });
    return pairs.sort((one, other) => order.compare(rows.scene(one), rows.scene(other)) || one - other);
  }
  const measure = sort === "change" ? rows.variation : rows.severity;
  const values = new Map(pairs.map((pair) => [pair, measure(pair, model)]));
  return pairs.sort((one, other) => values.get(other) - values.get(one) || one - other);
}

// Cards in rows of a grid; heights are estimated until a row was in sight.
function virtualList(box, card) {
  const grid = box.querySelector(".pair-grid");
  let [pairs, columns, heights, offsets, nodes] = [[], 1, [], [], new Map()];
  let isEstimated = false; // whether rows that were never in sight have the height of those that were
  const measureOffsets = () => {
    offsets = new Float64Array(heights.length + 1);
    heights.forEach((height, row) => (offsets[row + 1] = offsets[row] + height));
  };
  const rowAt = (y) => {
    let [low, high] = [0, heights.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (offsets[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  const place = () => {
    const [first, last] = [rowAt(box.scrollTop - AHEAD), rowAt(box.scrollTop + box.clientHeight + AHEAD)];
    const wanted = pairs.slice(first * columns, (last + 1) * columns);
    const keep = new Set(wanted);
    for (const [pair, node] of nodes) {
      if (keep.has(pair)) continue;
      if (node.contains(document.activeElement)) box.focus({ preventScroll: true });
      node.remove();
      nodes.delete(pair);
    }
    let next = grid.firstChild;
    wanted.forEach((pair, at) => {
      if (!nodes.has(pair)) nodes.set(pair, card(pair));
      const node = nodes.get(pair);
      node.setAttribute("aria-posinset", first * columns + at + 1);
      node.setAttribute("aria-setsize", pairs.length);
      if (node === next) next = next.nextSibling;
      else grid.insertBefore(node, next);
    });
    grid.style.paddingTop = `${offsets[first]}px`;
    grid.style.paddingBottom = `${Math.max(0, offsets[heights.length] - offsets[last + 1])}px`;
    return [first, last];
  };
  // Heights are measured where cards are; rows above the sight that turn out otherwise move nothing in it.
  const draw = () => {
    if (!box.clientWidth) return;
    for (let round = 0; round < 4; round += 1) {
      const [first, last] = place();
      let [changed, shift] = [false, 0];
      for (let row = first; row <= last; row += 1) {
        const node = nodes.get(pairs[row * columns]);
        if (!node) continue;
        const height = node.offsetHeight + GAP;
        if (Math.abs(height - heights[row]) < 0.5) continue;
        if (offsets[row + 1] <= box.scrollTop) shift += height - heights[row];
        heights[row] = height;
        changed = true;
      }
      if (!changed) return;
      if (!isEstimated) heights.fill(heights[last], last + 1);
      isEstimated = true;
      measureOffsets();
      place();
      if (shift) box.scrollTop += shift;
    }
  };
  const arrange = () => {
    const top = heights.length ? rowAt(box.scrollTop) * columns : 0;
    columns = Math.max(1, Math.floor((grid.clientWidth + GAP) / (LEAST_CARD + GAP)));
    grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    heights = new Array(Math.ceil(pairs.length / columns)).fill(620);
    isEstimated = false;
    measureOffsets();
    draw();
    if (top) box.scrollTop = offsets[Math.floor(top / columns)];
  };
  const show = (chosen) => {
    pairs = chosen;
    grid.replaceChildren();
    nodes.clear();
    heights = [];
    box.scrollTop = 0;
    arrange();
  };
  const focusCard = (at) => {
    if (at < 0 || at >= pairs.length) return;
    const row = Math.floor(at / columns);
    if (!nodes.has(pairs[at])) {
      box.scrollTop = offsets[row];
      draw();
    }
    nodes.get(pairs[at])?.focus();
  };
  box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  box.addEventListener("keydown", (event) => {
    const at = pairs.indexOf(Number(event.target.closest("article")?.dataset.pair ?? -1));
    const steps = { PageDown: at + 1, PageUp: at - 1 };
    if (event.ctrlKey) Object.assign(steps, { Home: 0, End: pairs.length - 1 });
    if (!(event.key in steps)) return;
    event.preventDefault();
    focusCard(steps[event.key]);
  });
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    arrange();
  }).observe(box);
  return { show };
}

function fillFilters(form, rows) {
  const fill = (name, entries, every) => {
    const select = form.elements[name];
    if (!select) return;
    const options = entries.map(([value, word]) => element("option", { value }, word));
    select.replaceChildren(...(every ? [element("option", { value: "" }, every)] : []), ...options);
  };
  const values = (name) => [...new Set(rows.texts[name][0])];
  const same = (names) => names.map((name) => [name, name]);
  fill("factor", same(values("factor").filter(Boolean)), "all");
  const forms = new Map();
  for (let pair = 0; pair < rows.size; pair += 1) {
    const query = rows.text.query(pair);
    if (!forms.has(query)) forms.set(query, new Set());
    forms.get(query).add(rows.text.form(pair));
  }
  const questions = [...forms].flatMap(([query, own]) => [query, ...(own.size > 1 ? [...own].map((each) => `${query} (${each})`) : [])]);
  fill("question", same(questions), "all");
  fill("outcome", rows.outcomes.map(([word, name]) => [word, name]), "all");
  fill("model", same(rows.models), "all");
  const kinds = new Set(values("kind"));
  fill("kind", Object.entries(rows.kinds).filter(([kind]) => kinds.has(kind)).map(([kind, word]) => [kind === "intervention" ? "" : kind, word]));
  fill("sort", Object.entries(SORT_WORDS).map(([sort, word]) => [sort === "worst" ? "" : sort, word]));
}
// A condition of the address that no option has, such as several outcomes at once, becomes an option.
function setFilters(form, rows, state, counts) {
  for (const name of CONDITIONS) {
    const control = form.elements[name];
    if (!control) continue;
    const value = state[name] ?? "";
    if (control.type === "checkbox") control.checked = Boolean(value);
    else if (control.value !== value) {
      const known = control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value);
      if (!known) control.append(element("option", { value }, value));
      control.value = value;
    }
  }
  const words = Object.fromEntries(rows.outcomes.map(([word, name]) => [word, name]));
  for (const option of form.elements.outcome.options) {
    const chosen = option.value.split(",").filter(Boolean);
    if (!chosen.length) continue;
    const number = chosen.length === 1 ? ` (${(counts[chosen[0]] ?? 0).toLocaleString("en")})` : "";
    option.textContent = chosen.map((word) => words[word] ?? word).join(" or ") + number;
  }
}

// An address with conditions leads to the pairs that meet them, the number of them above the first, else to the head of the section.
function showPairs(state) {
  const target = Object.keys(state).length ? document.getElementById("pair-count") : document.getElementById("pairs");
  target.scrollIntoView();
}

async function startPairs() {
  const form = document.getElementById("pair-filters");
  const box = document.getElementById("pair-list");
  const data = JSON.parse(new TextDecoder().decode(await unpacked(document.getElementById("pair-rows").textContent.trim())));
  const webp = JSON.parse(document.getElementById("pair-pictures").textContent);
  data.pictures = Object.fromEntries(Object.entries(webp).map(([key, text]) => [key, `data:image/webp;base64,${text}`]));
  const rows = pairRows(data);
  const views = new Map();
  const view = (pair) => views.get(pair) ?? views.set(pair, {}).get(pair);
  const list = virtualList(box, (pair) => pairCard(rows, pair, view(pair)));
  document.getElementById("plain-pairs").remove();
  fillFilters(form, rows);
  let state = {};
  const show = () => {
    const { matches, counts } = matchingPairs(rows, state);
    setFilters(form, rows, state, counts);
    const all = rows.texts.kind[1].filter((code) => rows.texts.kind[0][code] === (state.kind ?? "intervention")).length;
    document.getElementById("pair-count").textContent = `${matches.length.toLocaleString("en")} of ${all.toLocaleString("en")} pairs`;
    list.show(matches);
  };
  // The address changes by a link, by back and forward, or by a control, which does not move the page.
  const follow = () => {
    const given = location.hash ? readAddress(location.hash) : {};
    if (!given) return;
    state = given;
    show();
    if (location.hash) showPairs(given);
  };
  const change = (replace) => {
    const next = {};
    for (const name of CONDITIONS) {
      const control = form.elements[name];
      const value = control?.type === "checkbox" ? (control.checked ? "1" : "") : control?.value;
      if (value) next[name] = value;
    }
    state = next;
    history[replace ? "replaceState" : "pushState"](null, "", writeAddress(state));
    show();
  };
  let typed;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => change(false)));
  form.addEventListener("change", (event) => event.target.name !== "text" && change(false));
  form.elements.text.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => change(readAddress(location.hash) !== null), 150);
  });
  addEventListener("hashchange", follow);
  state = readAddress(location.hash) ?? {};
  show();
  if (readAddress(location.hash)) showPairs(state);
  document.documentElement.dataset.pairs = "ready";
}
startPairs();
