// The theme before anything is drawn: from the address (#theme=dark), else as last chosen here, else the system's.
(() => {
  let theme = /[#&]theme=(light|dark|auto)\b/.exec(location.hash)?.[1];
  try {
    theme ??= localStorage.getItem("theodolite-theme");
  } catch {} // A browser may refuse storage to pages from disk.
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
