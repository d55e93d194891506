//! An HTTP/1.1 proxy in front of DynamoDB Local that throttles and fails as DynamoDB does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Decides on a request by its operation (`PutItem`) and body, which it may change. None passes the response
/// through.
pub(crate) type Rule = dyn Fn(&str, &mut Value) -> Option<Answer> + Send + Sync;

pub(crate) enum Answer {
    /// Answers with this status and body; DynamoDB gets nothing.
    Instead(u16, Value),
    /// Accepts after that time; DynamoDB gets nothing.
    Late(Duration),
}

/// Starts a proxy to the DynamoDB that listens on `upstream`. Returns the proxy's port.
pub(crate) async fn start(upstream: u16, rule: Arc<Rule>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(client, upstream, Arc::clone(&rule)));
        }
    });
    port
}

async fn serve(mut client: TcpStream, upstream: u16, rule: Arc<Rule>) {
    while let Some((head, body)) = read_message(&mut client).await {
        let target = header(&head, "x-amz-target").unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        let (status, response) = match rule(target.rsplit('.').next().unwrap(), &mut body) {
            Some(Answer::Instead(status, response)) => (status, response),
            Some(Answer::Late(time)) => {
                tokio::time::sleep(time).await;
                (200, Value::Object(serde_json::Map::new()))
            }
            None => forward(upstream, &head, &body).await,
        };
        let response = response.to_string();
        let text = format!(
            "HTTP/1.1 {status} .\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{response}",
            response.len()
        );
        client.write_all(text.as_bytes()).await.unwrap();
    }
}

/// Returns the upstream's status and body. DynamoDB Local does not check the signature.
async fn forward(upstream: u16, head: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let kept = head.lines().skip(1).filter(|line| {
        let line = line.to_ascii_lowercase();
        !line.is_empty() && !line.starts_with("content-length") && !line.starts_with("x-amz-content")
    });
    let head = kept.fold("POST / HTTP/1.1\r\n".to_owned(), |head, line| head + line + "\r\n");
    let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
    server.write_all(text.as_bytes()).await.unwrap();
    let (head, response) = read_message(&mut server).await.unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_slice(&response).unwrap())
}

fn header(head: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|pair| pair.1.trim().to_owned())
    };
    head.lines().find_map(value)
}

/// Head and body; None at the end of the connection.
async fn read_message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            if read.len() >= end + 4 + length {
                return Some((head, read[end + 4..end + 4 + length].to_vec()));
            }
        }
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            return None;
        }
    }
}
