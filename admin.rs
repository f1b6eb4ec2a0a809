use std::sync::Arc;
pub fn api(c: Arc<crate::control::Control>)->axum::Router{ let c2=c.clone(); axum::Router::new().route("/metrics",axum::routing::get(move||{let c=c.clone(); async move{c.metrics().render()}})).route("/readyz",axum::routing::get(move||{let _c=c2.clone(); async{"ok"}}))}
pub fn probes(c: Arc<crate::control::Control>)->axum::Router{api(c)}
pub async fn serve(l: tokio::net::TcpListener, r: axum::Router, _t: Option<Arc<crate::tls::ServerTlsState>>){ let _=axum::serve(l,r).await; }
