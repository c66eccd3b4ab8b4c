// Inside Airflow's iframe: follow its theme, and open its own pages in the whole window. Everything works without.
(() => {
  const root = document.documentElement;
  const inside = window.parent !== window;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch { /* no storage: the system's theme */ }
    root.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light";
  };
  follow();
  dark.addEventListener("change", follow);
  window.addEventListener("storage", (event) => { if (event.key === "theme" || event.key === null) follow(); });
  window.addEventListener("load", () => {
    document.querySelector(".graph .chosen")?.scrollIntoView({ block: "nearest", inline: "center" });
  });
  // A page comes whole. While a slow one is waited for, the one before it says so.
  const told = () => document.querySelector(".loading");
  window.addEventListener("beforeunload", () => setTimeout(() => {
    told().textContent = told().dataset.slow;
    told().hidden = false;
  }, 400));
  window.addEventListener("pageshow", () => { told().hidden = true; });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || !inside || event.ctrlKey || event.metaKey || event.shiftKey) return;
    try {
      // the frame may not navigate the window; a link of the window's own document may
      const outer = window.parent.document.createElement("a");
      outer.href = link.href;
      window.parent.document.body.append(outer);
      event.preventDefault();
      outer.click();
      outer.remove();
    } catch { /* not Airflow's frame: an ordinary link */ }
  });
})();
