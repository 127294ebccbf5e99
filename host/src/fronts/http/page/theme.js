// Before anything is painted, so that the other theme is never seen for a moment.
const theme = (() => {
  try {
    return localStorage.getItem("registry.theme");
  } catch {
    return null;
  }
})();
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
