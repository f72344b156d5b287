// The colour scheme: the system's until the reader chooses. Runs before the first paint, so that no page
// flashes in the wrong colours; it must not know anything else of the page.
(function () {
  "use strict";
  const KEY = "graylogic-theme";
  const ORDER = ["auto", "light", "dark"];

  // Storage can be switched off in the browser; then the choice lasts as long as the page.
  function stored() {
    try {
      const choice = localStorage.getItem(KEY);
      return ORDER.includes(choice) ? choice : "auto";
    } catch {
      return "auto";
    }
  }

  let choice = stored();

  function apply() {
    if (choice === "auto") {
      delete document.documentElement.dataset.theme;
    } else {
      document.documentElement.dataset.theme = choice;
    }
    document.dispatchEvent(new CustomEvent("themechange"));
  }

  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = `Theme: ${choice}`;
    };
    label();
    button.addEventListener("click", () => {
      choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // Said above: without storage the choice is not remembered.
      }
      label();
      apply();
    });
  });
})();
