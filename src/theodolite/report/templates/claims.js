// The claims that are shown are in the address: #claims?finding=fails&source=a%20trial. Without JavaScript all of them are.
(() => {
  const form = document.getElementById("claim-filters");
  if (!form) return;
  const rows = [...document.querySelectorAll("tr[data-claim]")];
  const filters = [...form.querySelectorAll("select")];
  for (const select of filters) {
    const values = [...new Set(rows.map((row) => row.dataset[select.name]))];
    select.replaceChildren(new Option("all", ""), ...values.map((value) => new Option(value, value)));
  }
  const show = () => {
    for (const row of rows) row.hidden = filters.some(({ name, value }) => value && row.dataset[name] !== value);
    document.getElementById("claim-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
  };
  const read = () => {
    const [anchor, query] = location.hash.slice(1).split("?");
    if (anchor !== "claims") return;
    const asked = new URLSearchParams(query ?? "");
    for (const select of filters) select.value = asked.get(select.name) ?? "";
    show();
    if (query) form.scrollIntoView();
  };
  const write = () => {
    const chosen = new URLSearchParams(filters.filter(({ value }) => value).map(({ name, value }) => [name, value]));
    history.replaceState(null, "", `#claims${chosen.size ? "?" : ""}${chosen}`);
    show();
  };
  form.addEventListener("change", write);
  form.addEventListener("reset", () => setTimeout(write)); // The fields are empty only after the event.
  addEventListener("hashchange", read);
  show();
  read();
})();
