// A report is shown apart from this server's other pages and cannot read their choice of a theme, so its address carries it.
const reports = document.querySelectorAll('a[href^="/report?"]');
function passTheme() {
  const theme = document.documentElement.dataset.theme;
  for (const link of reports) link.hash = theme ? `theme=${theme}` : "";
}
passTheme();
addEventListener("themechange", passTheme);
