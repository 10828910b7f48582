//! gRPC over a unix socket.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::socket::Socket;
use super::source::{SourceError, within};

/// The largest answer accepted, as large as runtimes send.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// The generated messages and clients.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub, rust_2018_idioms)]
pub(super) mod proto {
    pub(in crate::identity) mod cri {
        include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
    }
    pub(in crate::identity) mod pods {
        include!(concat!(env!("OUT_DIR"), "/v1alpha1.rs"));
    }
    pub(in crate::identity) mod core {
        include!(concat!(env!("OUT_DIR"), "/core.v1.rs"));
    }
}

/// Opens a channel; it says something only when it is used.
pub(super) async fn connect(socket: &Socket, deadline: Duration) -> Result<Channel, SourceError> {
    // The address is only the authority header; runtimes want a valid one.
    let endpoint = Endpoint::from_static("http://localhost");
    let connector = Connector(socket.path().to_path_buf());
    within("connect", deadline, async {
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map_err(|e| SourceError::failed("connect", Chain(&e)))
    })
    .await
}

/// Makes a call with a deadline.
pub(super) async fn call<T>(
    what: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, SourceError> {
    within(what, deadline, async {
        call.await.map(tonic::Response::into_inner).map_err(|s| refused(what, &s))
    })
    .await
}

/// A gRPC status as a reason.
pub(super) fn refused(what: &'static str, status: &Status) -> SourceError {
    match status.code() {
        Code::Unimplemented => SourceError::refused(what, "not offered here"),
        code => SourceError::failed(what, format!("{code:?}: {}", status.message())),
    }
}

/// An error with its causes: the outermost says only «transport error».
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
