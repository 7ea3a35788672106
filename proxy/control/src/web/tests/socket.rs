//! The same over the socket that the engine uses.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

async fn exchange(folder: &Folder, bytes: &[u8]) -> String {
    let socket = folder.path("state/run/web.sock");
    let mut stream = UnixStream::connect(socket).await.expect("connects");
    stream.write_all(bytes).await.expect("written");
    let mut answer = String::new();
    // A server that closes early may reset.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_connection_begins_with_who_is_there() {
    let folder = Folder::new(CONFIG);
    let _running = folder.start().await;
    let source = ([192, 0, 2, 7], 50_000).into();
    let mut bytes = postern_wire::proxy_protocol::encode(source, ([127, 0, 0, 1], 443).into());
    let request = b"GET /healthz HTTP/1.1\r\nhost: gw.example:8443\r\nconnection: close\r\n\r\n";
    bytes.extend_from_slice(request);
    let answer = exchange(&folder, &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("ok\n"), "{answer}");
    // Without a header nothing is answered.
    assert_eq!(exchange(&folder, request).await, "");
}
