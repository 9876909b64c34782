//! How long calls take, and how they end.
//!
//! **Invariant**: every call is counted once, when its last byte is handed over or its caller has gone; a method that no
//! service has is not counted by its name, which its caller chose.

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

/// How calls end whose caller does not wait for the end.
const GONE: &str = "CANCELLED";
/// Those of the services that every server has.
const STANDARD_METHODS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The name of every method that there is not.
const UNKNOWN_METHOD: &str = "unknown";

/// Counts and times the calls of the services below it.
#[derive(Clone, Debug)]
pub struct CallMetricsLayer {
    metrics: CallMetrics,
    /// Full names, sorted: `silkrate.v1.RateService/GetRate`.
    methods: Arc<Vec<String>>,
}

impl CallMetricsLayer {
    /// Into `metrics`, by the methods of `silkrate.v1` and of the standard services.
    pub fn new(metrics: CallMetrics) -> Self {
        // The bytes are what the build wrote; if they were not, calls would be counted as unknown ones.
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        let ours = files.iter().flat_map(|file| {
            file.service.iter().flat_map(|service| {
                let name = format!("{}.{}", file.package(), service.name());
                service.method.iter().map(move |method| format!("{name}/{}", method.name()))
            })
        });
        let mut methods: Vec<String> = ours.chain(STANDARD_METHODS.map(str::to_owned)).collect();
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

/// See [`CallMetricsLayer`].
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
            ended: GONE,
            _open: metrics.begin(),
        };
        CallMetricsFuture { inner: self.inner.call(request), call: Some(call) }
    }
}

/// A call under way, counted when dropped.
struct Call {
    method: Option<usize>,
    methods: Arc<Vec<String>>,
    begun: Instant,
    metrics: CallMetrics,
    ended: &'static str,
    _open: OpenCall,
}

impl Call {
    /// Looks for the status among headers or trailers.
    fn look_at(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.ended = name(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let method = self.method.and_then(|at| self.methods.get(at)).map_or(UNKNOWN_METHOD, String::as_str);
        self.metrics.ended(method, self.ended, self.begun.elapsed());
    }
}

pin_project! {
    /// An answer being made.
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
        let answer = ready!(this.inner.poll(context));
        let Some(mut call) = this.call.take() else { return Poll::Ready(answer) };
        Poll::Ready(answer.map(|response| {
            // A refusal says its status at once, and has no body.
            call.look_at(response.headers());
            response.map(|inner| Body::new(MeasuredBody { inner, call }))
        }))
    }
}

/// A body that goes with its call.
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
            self.call.look_at(trailers);
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

/// As gRPC writes it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => GONE,
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

    /// What was counted: "method code", each as often as it was.
    fn counted(metrics: &CallMetrics) -> Vec<String> {
        let families = metrics.collect();
        let took = families.iter().find(|family| family.name() == "silkrate_grpc_call_seconds").unwrap();
        let lines = took.get_metric().iter().flat_map(|metric| {
            // Labels come sorted by their names: code, then method.
            let [code, method] = metric.get_label() else { panic!("{metric:?}") };
            let line = format!("{} {}", method.value(), code.value());
            std::iter::repeat_n(line, usize::try_from(metric.get_histogram().get_sample_count()).unwrap())
        });
        lines.collect()
    }

    #[tokio::test]
    async fn calls_are_counted_when_they_are_over() {
        let answer = |status: Option<Status>| async move {
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
                CallMetricsLayer::new(metrics.clone()).layer(tower::service_fn(move |_| answer(status.clone())));
            service.oneshot(Request::builder().uri(path).body(()).unwrap())
        };
        let rate = "/silkrate.v1.RateService/GetRate";
        let good = call(rate, None).await.unwrap();
        assert_eq!(counted(&metrics), [""; 0], "its body is still to come");
        good.into_body().collect().await.unwrap();
        assert_eq!(counted(&metrics), ["silkrate.v1.RateService/GetRate OK"]);
        // Left alone before its end, refused, and one that there is not.
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
