// Administrator's page: accounts, trunks, and the audit log.
import { Account } from "./account.js";
import { Accounts } from "./accounts.js";
import { loadAdminSession } from "./api.js";
import { AuditLog } from "./audit.js";
import { html } from "./dom.js";
import { start } from "./frame.js";
import { Trunks } from "./trunks.js";

const SECTIONS = [
  ["accounts", "Accounts", "accounts", Accounts],
  ["trunks", "Trunks", "trunks", Trunks],
  ["audit", "Audit log", "audit", AuditLog],
];

await start(async () => {
  const name = await loadAdminSession();
  return {
    sections: SECTIONS,
    details: { accounts: Account },
    who: html`<span class="account" title="The administrator's key that you are logged in with">${name}</span>`,
    logout: { path: "/admin/logout", title: "Log out" },
    login: "/admin/login",
    titleOf: (words, id) => id ?? words,
  };
});
