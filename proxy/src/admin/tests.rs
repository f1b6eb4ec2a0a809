//! The rules of the admin API, over its routers without a socket.

mod access;
mod commands;
mod logs;
mod scale;
mod shown;

const PLAIN: &str = "\
admin: {address: '127.0.0.1:9901', hosts: [Admin.Example.com]}
listeners: [{name: main, address: '127.0.0.1:0'}]
routes:
- {name: r, match: {path: {prefix: /a}}, split: [{cluster: a, weight: 1}, {cluster: b, weight: 3}]}
- {name: ping, match: {path: {exact: /ping}, headers: {authorization: hunter2}}, respond: {body: pong}}
clusters:
- {name: a, endpoints: ['127.0.0.1:8001', '127.0.0.1:8002']}
- {name: b, discover: {dns: {name: nowhere.invalid, port: 80, refresh: 1h}}}
";
const TOKEN: &str = "admin: {address: '127.0.0.1:9901', token: a-long-enough-token-for-everyone}\n";
const JSON: (&str, &str) = ("content-type", "application/json");
