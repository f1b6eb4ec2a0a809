//! Nothing is buffered but what holds the name.

use tokio::sync::oneshot;

use super::*;
use crate::support::respond;
use std::sync::{Arc, Mutex};

#[tokio::test(flavor = "multi_thread")]
async fn a_long_upload_streams_once_its_model_is_known() {
    const LENGTH: usize = 10 << 20;
    let (saw, seen) = oneshot::channel();
    let saw = Arc::new(Mutex::new(Some(saw)));
    let upstream = Upstream::start(move |mut peer| {
        let saw = Arc::clone(&saw);
        async move {
            peer.head().await;
            while peer.buffer.len() < 500 && peer.read().await {}
            let begun = peer.buffer.clone();
            if let Some(saw) = saw.lock().unwrap().take() {
                let _ = saw.send(begun);
            }
            while !peer.buffer.ends_with(b"\"}") && peer.read().await {}
            peer.write(respond(200, &peer.buffer.len().to_string()))
                .await;
        }
    })
    .await;
    let keys = "server: vllm, models: [real-name, m]";
    let proxy = Proxy::start(&by_model(&[("a", upstream.address, keys)])).await;
    let begin = "{\"model\":\"m\",\"prompt\":\"";
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(format!(
            "POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: {LENGTH}\r\n\r\n{begin}{}",
            "x".repeat(1000)
        ))
        .await;
    let begun = tokio::time::timeout(crate::support::PATIENCE, seen)
        .await
        .unwrap()
        .unwrap();
    assert!(
        begun.starts_with(b"{\"model\":\"real-name\",\"prompt\":\"xxx"),
        "before the rest was sent"
    );
    let rest = "x".repeat(LENGTH - begin.len() - 1000 - 2);
    client.send(rest).await;
    client.send("\"}").await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), (LENGTH + "real-name".len() - 1).to_string());
    assert!(upstream.text().contains(&format!(
        "content-length: {}",
        LENGTH + "real-name".len() - 1
    )));
    proxy.stop().await;
}
