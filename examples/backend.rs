//! A backend that costs little, for `benches/`: HTTP/1.1 and HTTP/2 with prior knowledge on one thread.
//!
//! ```text
//! cargo run --release --example backend [ADDRESS]     # default 127.0.0.1:0; prints `listening on ADDRESS`
//! ```
//!
//! Only the end of a path counts, so that a proxy may route by any prefix in front of it:
//!
//! | path ends with | answer |
//! |---|---|
//! | `/bytes/N` | N bytes with a content-length |
//! | `/echo` | reads the whole body, answers `{"bytes": LENGTH}` |
//! | `/delay/MS` | the small JSON after MS milliseconds |
//! | `/sse/N` | N server-sent events, one every 10 ms, each carrying its number |
//! | `/headers` | the request's head as received, one `name: value` a line |
//! | anything else | a JSON prediction of about 150 bytes |

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{self, Interval};

const PREDICTION: &[u8] = br#"{"model_name":"bench","model_version":"1","id":"7f1c","outputs":[{"name":"predict","datatype":"INT64","shape":[1,3],"data":[0.01,0.97,0.02]}]}
"#;

/// What `/bytes/N` is cut from.
static BLOCK: [u8; 64 << 10] = [b'x'; 64 << 10];

const EVENT_INTERVAL: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    io::stdout().flush()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            Err(error) => {
                eprintln!("accept: {error}");
                time::sleep(EVENT_INTERVAL).await; // out of descriptors: wait for some to close
            }
        }
    }
}

/// Serves one connection to its end; how a load generator leaves is of no interest.
async fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().max_concurrent_streams(1024);
    let _ = server
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(req: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    let mut segments = req.uri().path().rsplit('/');
    let last = segments.next().unwrap_or_default();
    let number = last.parse::<u64>().ok();
    Ok(match (segments.next(), number) {
        (Some("bytes"), Some(n)) => response("application/octet-stream", Answer::Repeated(n)),
        (Some("sse"), Some(n)) => response("text/event-stream", Answer::events(n)),
        (Some("delay"), Some(ms)) => {
            time::sleep(Duration::from_millis(ms)).await;
            json(Bytes::from_static(PREDICTION))
        }
        (Some("bytes" | "sse" | "delay"), None) => {
            let mut refusal = json(Bytes::from_static(b"{\"error\":\"not a number\"}\n"));
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            refusal
        }
        _ if last == "echo" => {
            let bytes = drain(req.into_body()).await?;
            json(format!("{{\"bytes\":{bytes}}}\n").into())
        }
        _ if last == "headers" => response("text/plain", Answer::Whole(Some(head(&req)))),
        _ => json(Bytes::from_static(PREDICTION)),
    })
}

/// Reads a body to its end and returns its length in bytes.
async fn drain(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

fn head(req: &Request<Incoming>) -> Bytes {
    let mut text = format!("{} {} {:?}\n", req.method(), req.uri(), req.version()).into_bytes();
    for (name, value) in req.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text.into()
}

fn json(body: Bytes) -> Response<Answer> {
    response("application/json", Answer::Whole(Some(body)))
}

fn response(content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The bodies this server sends.
enum Answer {
    Whole(Option<Bytes>),
    /// So many bytes are left of `BLOCK` repeated.
    Repeated(u64),
    Events {
        next: u64,
        end: u64,
        interval: Interval,
    },
}

impl Answer {
    fn events(end: u64) -> Self {
        Self::Events {
            next: 0,
            end,
            interval: time::interval(EVENT_INTERVAL),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(body) => body.take(),
            Self::Repeated(0) => None,
            Self::Repeated(left) => {
                let block = &BLOCK[..BLOCK
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX))];
                *left -= block.len() as u64;
                Some(Bytes::from_static(block))
            }
            Self::Events { next, end, .. } if next == end => None,
            Self::Events { next, interval, .. } => {
                ready!(interval.poll_tick(cx));
                *next += 1;
                Some(format!("data: {{\"event\":{next}}}\n\n").into())
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Repeated(left) => *left == 0,
            Self::Events { next, end, .. } => next == end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Self::Repeated(left) => SizeHint::with_exact(*left),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}
