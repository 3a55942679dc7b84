// Says why the log-in page is shown again.
const WHY = {
  wrong: "Auth ID or auth token is wrong.",
  ended: "You were logged out because you had not been here for a while. Log in again.",
  often: "Too many wrong tokens. Wait a minute, then try again.",
};

const error = new URLSearchParams(location.search).get("error");
if (error) document.getElementById("refused").textContent = WHY[error] ?? "That did not work. Try again.";
