// The same four reads on the same app.db: Fastify, and the SQLite that is built into Node.
// Validated and serialised by schemas, as Fastify's manual teaches. Reads, and nothing else.

import { hash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import Fastify from "fastify";

const [file, port] = process.argv.slice(2);
const database = new DatabaseSync(file);
const COLUMNS = "user.id, user.name, user.email, user.is_admin, user.created_at";
const selectAsker = database.prepare(
  `SELECT ${COLUMNS} FROM token JOIN user ON user.id = token.user_id
   WHERE hashed_token = ? AND expires_at > ?`,
);
const selectOne = database.prepare(`SELECT ${COLUMNS} FROM user WHERE id = ?`);
const selectPage = database.prepare(`SELECT ${COLUMNS} FROM user WHERE id > ? ORDER BY id LIMIT ?`);

const account = {
  type: "object",
  properties: {
    id: { type: "integer" },
    name: { type: "string" },
    email: { type: "string" },
    is_admin: { type: "boolean" },
    created_at: { type: "string" },
  },
};
const page = {
  type: "object",
  properties: {
    limit: { type: "integer", minimum: 1, maximum: 100, default: 20 },
    after: { type: "integer", minimum: 0, default: 0 },
  },
};
const one = { params: { type: "object", properties: { id: { type: "integer" } } }, response: { 200: account } };
const many = { querystring: page, response: { 200: { type: "array", items: account } } };

function refuse(statusCode, message) {
  throw Object.assign(new Error(message), { statusCode });
}

function shown(row) {
  row.created_at = row.created_at.replace(" ", "T") + "Z";
  return row;
}

function asker(request) {
  const token = (request.headers.authorization ?? "").replace("Bearer ", "");
  const now = new Date().toISOString().replace("T", " ").replace("Z", "");
  return selectAsker.get(hash("sha256", token), now) ?? refuse(401, "Log in.");
}

function administrator(request) {
  if (!asker(request).is_admin) refuse(403, "For administrators.");
}

const app = Fastify();
app.get("/api/users/me", { schema: { response: { 200: account } } }, async (request) => shown(asker(request)));
app.get("/api/users/:id", { schema: one }, async (request) => {
  const user = asker(request);
  if (user.id === request.params.id) return shown(user);
  if (!user.is_admin) refuse(403, "For administrators.");
  return shown(selectOne.get(request.params.id) ?? refuse(404, "User not found."));
});
app.get("/api/users", { schema: many }, async (request, reply) => {
  administrator(request);
  const { limit, after } = request.query;
  const rows = selectPage.all(after, limit + 1);
  if (rows.length > limit) {
    rows.pop();
    const url = new URL(request.url, `http://${request.headers.host}`);
    url.searchParams.set("after", rows.at(-1).id);
    reply.header("Link", `<${url}>; rel="next"`);
  }
  return rows.map(shown);
});
await app.listen({ host: "127.0.0.1", port: Number(port) });
