// A client in TypeScript, on types that openapi-typescript makes from /openapi.json.
// tests/test_clients.py compiles it strictly and runs it: node client.js URL PASSWORD.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2]! });

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

const person = { name: "Tess", email: "tess@example.com", password: "secret" };
const signUp = await client.POST("/api/users", { body: person });
check(signUp.data !== undefined, "sign-up");
const id: number = signUp.data.id;
check(signUp.response.headers.get("Location") === `/api/users/${id}`, "Location");

// A refusal's detail is a string, and on 422 a list with a place and a sentence.
const taken = await client.POST("/api/users", { body: person });
check(taken.response.status === 409 && taken.error !== undefined, "409");
check(taken.error.detail === "Email already registered.", "the 409's sentence");
const wrong = await client.POST("/api/users", { body: { ...person, email: "none" } });
check(wrong.error !== undefined && typeof wrong.error.detail !== "string", "422");
const [mistake] = wrong.error.detail;
check(mistake?.loc[1] === "email" && mistake.msg.includes("@"), "the 422's place");

const form = { "Content-Type": "application/x-www-form-urlencoded" };
const login = await client.POST("/api/login", {
  body: { username: person.email, password: person.password },
  headers: form,
});
check(login.data !== undefined, "log-in");
const headers = { Authorization: `Bearer ${login.data.access_token}` };

const me = await client.GET("/api/users/{user_id}", {
  params: { path: { user_id: "me" } },
  headers,
});
check(me.data?.email === person.email, "me");
const changed = await client.PATCH("/api/users/{user_id}", {
  params: { path: { user_id: id } },
  body: { name: "Theresa" },
  headers,
});
check(changed.data?.name === "Theresa", "change");
const refused = await client.PATCH("/api/users/{user_id}", {
  params: { path: { user_id: "me" } },
  body: { password: "better" },
  headers,
});
check(refused.error?.detail === "Send current_password too.", "403");

const root = await client.POST("/api/login", {
  body: { username: "root@example.com", password: process.argv[3]! },
  headers: form,
});
const admin = { Authorization: `Bearer ${root.data!.access_token}` };
const listPage = (after: string) =>
  client.GET("/api/users", {
    params: { query: { limit: 2, sort: "name", after } },
    headers: admin,
  });
const names: string[] = [];
let page = await listPage("");
while (true) {
  check(page.data !== undefined, "list");
  names.push(...page.data.map((user) => user.name));
  const next = page.response.headers.get("Link")?.match(/<(.+)>/)?.[1];
  if (next === undefined) break;
  const url = new URL(next, page.response.url); // `Link` is a path
  page = await listPage(url.searchParams.get("after")!);
}
console.log(names.join(" "));

const logout = await client.POST("/api/logout", { headers });
check(logout.response.status === 204, "log-out");
const gone = await client.GET("/api/users/{user_id}", {
  params: { path: { user_id: "me" } },
  headers,
});
check(gone.response.status === 401, "401");
