// The pairs behind the counts: which are shown is in the address, #pairs?right=only_one&factor=colour&question=shape%20(open)&truth=stays.
(async () => {
  const PAGE = 40;
  const box = document.getElementById("pair-list");
  document.querySelector("#pairs .no-script").hidden = true;
  const { columns, rows } = JSON.parse(new TextDecoder().decode(await unpacked(document.getElementById("pair-data").textContent.trim())));
  const pairs = rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at]])));
  for (const pair of pairs) {
    pair.right = pair.right_by;
    pair.question = `${pair.query} (${pair.form})`;
    pair.truth = pair.truth_before === pair.truth_after ? "stays" : "moves";
  }
  const form = box.querySelector("form");
  const filters = [...form.querySelectorAll("select")];
  for (const select of filters) {
    if (select.options.length > 1) continue;
    for (const value of [...new Set(pairs.map((pair) => pair[select.name]))].sort()) select.add(new Option(value, value));
  }
  const made = (name, text, kind = "") => Object.assign(document.createElement(name), { textContent: text, className: kind });
  const answers = (pair, side) => {
    const cell = made("td", "");
    ["before", "after"].forEach((when, at) => {
      const answer = pair[`answer_${when}${side}`];
      if (at) cell.append(" → ");
      cell.append(made("span", answer ?? "–", answer !== null && answer !== pair[`truth_${when}`] ? "wrong" : ""));
    });
    return cell;
  };
  const line = (pair) => {
    const row = document.createElement("tr");
    row.dataset.right = pair.right;
    row.append(made("td", `${pair.factor}: ${pair.value_before ?? "–"} → ${pair.value_after ?? "–"}`), made("td", pair.question_before, "question"));
    row.append(made("td", pair.truth === "moves" ? `${pair.truth_before} → ${pair.truth_after}` : pair.truth_before));
    row.append(answers(pair, ""), answers(pair, "_other"), made("td", pair.row === null ? pair.scene_label : `${pair.scene_label}, row ${pair.row}`));
    return row;
  };
  const [body, more, count] = [box.querySelector("tbody"), box.querySelector(".more"), box.querySelector("output")];
  let matching = [];
  const show = (from) => {
    body.append(...matching.slice(from, from + PAGE).map(line));
    more.hidden = body.rows.length >= matching.length;
  };
  const draw = () => {
    const wanted = filters.filter((select) => select.value);
    matching = pairs.filter((pair) => wanted.every((select) => pair[select.name] === select.value));
    count.textContent = `${matching.length.toLocaleString("en")} of ${pairs.length.toLocaleString("en")} pairs`;
    body.replaceChildren();
    show(0);
  };
  const read = () => {
    const [anchor, query] = location.hash.slice(1).split("?");
    if (anchor !== "pairs") return;
    const asked = new URLSearchParams(query ?? "");
    for (const select of filters) select.value = asked.get(select.name) ?? "";
    draw();
    document.getElementById("pairs").scrollIntoView();
  };
  form.addEventListener("change", () => {
    const chosen = new URLSearchParams(filters.filter((select) => select.value).map((select) => [select.name, select.value]));
    history.replaceState(null, "", `#pairs?${chosen}`);
    draw();
  });
  more.addEventListener("click", () => show(body.rows.length));
  addEventListener("hashchange", read);
  draw();
  read();
})();
