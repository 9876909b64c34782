//! The call metrics layer: counts gRPC calls and measures their duration, by method and status.
//!
//! **Invariant**: every call is counted once, when its last byte is passed on or its client disconnects. An unknown
//! method is not counted under its name, because clients could create any number of labels.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message as _;
use prost::bytes::Bytes;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::metrics::{CallMetrics, OpenCall};
use crate::proto::DESCRIPTORS;

/// The status of a call if its client disconnects before the end.
const CANCELLED: &str = "CANCELLED";
/// The methods of the standard gRPC services.
const STANDARD_METHODS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The label of all unknown methods.
const UNKNOWN_METHOD: &str = "unknown";

/// Counts the calls of the inner services and measures their duration.
#[derive(Clone, Debug)]
pub struct CallMetricsLayer {
    metrics: CallMetrics,
    /// The full names of the known methods, such as `silkrate.v1.RateService/GetRate`, sorted.
    methods: Arc<Vec<String>>,
}

impl CallMetricsLayer {
    /// Creates a layer that writes to `metrics`. Known methods are those of `silkrate.v1` and of the standard services.
    pub fn new(metrics: CallMetrics) -> Self {
        // Decoding cannot fail, because the build wrote the bytes. If it did, all methods would be unknown.
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        let own = files.iter().flat_map(|file| {
            file.service.iter().flat_map(|service| {
                let name = format!("{}.{}", file.package(), service.name());
                service.method.iter().map(move |method| format!("{name}/{}", method.name()))
            })
        });
        let mut methods: Vec<String> = own.chain(STANDARD_METHODS.map(str::to_owned)).collect();
        methods.sort_unstable();
        Self { metrics, methods: Arc::new(methods) }
    }
}

impl<S> Layer<S> for CallMetricsLayer {
    type Service = CallMetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallMetricsService { inner, layer: self.clone() }
    }
}

/// The service that [`CallMetricsLayer`] creates.
#[derive(Clone, Debug)]
pub struct CallMetricsService<S> {
    inner: S,
    layer: CallMetricsLayer,
}

impl<S, B> Service<Request<B>> for CallMetricsService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CallMetricsFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let CallMetricsLayer { metrics, methods } = &self.layer;
        let path = request.uri().path().trim_start_matches('/');
        let call = Call {
            method: methods.binary_search_by(|method| method.as_str().cmp(path)).ok(),
            methods: Arc::clone(methods),
            begun: Instant::now(),
            metrics: metrics.clone(),
            status: CANCELLED,
            _open: metrics.begin(),
        };
        CallMetricsFuture { inner: self.inner.call(request), call: Some(call) }
    }
}

/// A call in progress. Dropping it counts the call.
struct Call {
    method: Option<usize>,
    methods: Arc<Vec<String>>,
    begun: Instant,
    metrics: CallMetrics,
    status: &'static str,
    _open: OpenCall,
}

impl Call {
    /// Takes the status from headers or trailers, if they contain it.
    fn read_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.status = name(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let method = self.method.and_then(|index| self.methods.get(index)).map_or(UNKNOWN_METHOD, String::as_str);
        self.metrics.record_call(method, self.status, self.begun.elapsed());
    }
}

pin_project! {
    /// The future of a response. It passes the call on to the body of the response.
    pub struct CallMetricsFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, E> Future for CallMetricsFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(context));
        let Some(mut call) = this.call.take() else { return Poll::Ready(result) };
        Poll::Ready(result.map(|response| {
            // A refused call has its status in the headers, and no body.
            call.read_status(response.headers());
            response.map(|inner| Body::new(MeasuredBody { inner, call }))
        }))
    }
}

/// A response body that owns its call.
struct MeasuredBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read_status(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Returns the name of a status code in gRPC.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => CANCELLED,
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use prometheus::core::Collector as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Returns a line "method code" for each counted call.
    fn counted(metrics: &CallMetrics) -> Vec<String> {
        let families = metrics.collect();
        let durations = families.iter().find(|family| family.name() == "silkrate_grpc_call_seconds").unwrap();
        let lines = durations.get_metric().iter().flat_map(|metric| {
            // The labels are sorted by name: code, then method.
            let [code, method] = metric.get_label() else { panic!("{metric:?}") };
            let line = format!("{} {}", method.value(), code.value());
            std::iter::repeat_n(line, usize::try_from(metric.get_histogram().get_sample_count()).unwrap())
        });
        lines.collect()
    }

    #[tokio::test]
    async fn call_is_counted_when_it_ends() {
        let respond = |status: Option<Status>| async move {
            let body = http_body_util::Full::new(Bytes::from_static(b"x")).with_trailers(async {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                Some(Ok(trailers))
            });
            Ok::<_, Infallible>(match status {
                Some(status) => status.into_http(),
                None => Response::new(Body::new(body)),
            })
        };
        let metrics = CallMetrics::grpc();
        let call = |path: &str, status: Option<Status>| {
            let service =
                CallMetricsLayer::new(metrics.clone()).layer(tower::service_fn(move |_| respond(status.clone())));
            service.oneshot(Request::builder().uri(path).body(()).unwrap())
        };
        let rate = "/silkrate.v1.RateService/GetRate";
        let good = call(rate, None).await.unwrap();
        assert_eq!(counted(&metrics), [""; 0], "the body is not complete");
        good.into_body().collect().await.unwrap();
        assert_eq!(counted(&metrics), ["silkrate.v1.RateService/GetRate OK"]);
        // A call with a disconnected client, a refused call, and an unknown method.
        drop(call("/grpc.health.v1.Health/Watch", None).await.unwrap());
        drop(call(rate, Some(Status::not_found("no such series"))).await.unwrap());
        drop(call("/some.Where/Else", Some(Status::unimplemented(""))).await.unwrap());
        let mut found = counted(&metrics);
        found.sort_unstable();
        let expect = [
            "grpc.health.v1.Health/Watch CANCELLED",
            "silkrate.v1.RateService/GetRate NOT_FOUND",
            "silkrate.v1.RateService/GetRate OK",
            "unknown UNIMPLEMENTED",
        ];
        assert_eq!(found, expect);
    }
}
