//! HTTP/1.1 requests over any stream, with bounded answers.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::source::SourceError;

/// Bytes of an error answer that are read and shown.
const ERROR_BODY: usize = 4096;

/// One connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Speaks HTTP over `stream`.
    ///
    /// # Errors
    /// The handshake failed.
    pub(super) async fn over<S>(stream: S) -> Result<Connection, SourceError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| SourceError::failed("connect", e))?;
        // Its error shows in the request as well.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, driver })
    }

    /// Asks for `path`; the body is still to be read.
    ///
    /// # Errors
    /// No answer, or one that is not 200.
    pub(super) async fn get(
        &mut self,
        what: &'static str,
        host: &str,
        path: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, SourceError> {
        let found = self.find(what, host, path, authorization).await?;
        found.ok_or_else(|| SourceError::refused(what, StatusCode::NOT_FOUND))
    }

    /// Like [`get`](Connection::get), but `None` for 404.
    ///
    /// # Errors
    /// No answer, or one that is neither.
    pub(super) async fn find(
        &mut self,
        what: &'static str,
        host: &str,
        path: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Option<Response<Incoming>>, SourceError> {
        self.sender.ready().await.map_err(|e| SourceError::failed(what, e))?;
        let mut request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("nodegauge/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::new()).map_err(|e| SourceError::failed(what, e))?;
        let answer = self.sender.send_request(request).await.map_err(|e| SourceError::failed(what, e))?;
        let status = answer.status();
        if status != StatusCode::OK {
            let body = read(what, answer.into_body(), ERROR_BODY).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&body);
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            return Err(SourceError::refused(what, format!("{status}: {}", text.trim())));
        }
        Ok(Some(answer))
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// The connection broke, or there is more.
pub(super) async fn read(what: &'static str, mut body: Incoming, limit: usize) -> Result<Bytes, SourceError> {
    let mut all = BytesMut::new();
    while let Some(data) = chunk(what, &mut body).await? {
        if all.len() + data.len() > limit {
            return Err(SourceError::failed(what, format!("the answer is larger than {limit} bytes")));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// The next piece of a body; `None` at its end.
///
/// # Errors
/// The connection broke.
pub(super) async fn chunk(what: &'static str, body: &mut Incoming) -> Result<Option<Bytes>, SourceError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| SourceError::failed(what, e))?;
        // Trailers carry nothing for us.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
