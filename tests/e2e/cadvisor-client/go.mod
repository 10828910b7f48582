module nodegauge.test/cadvisor-client

go 1.23.0

require github.com/google/cadvisor v0.52.1

require (
	github.com/go-logr/logr v1.4.1 // indirect
	k8s.io/klog/v2 v2.100.1 // indirect
)
