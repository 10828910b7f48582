// cAdvisor as a program of its own, made of its published library: the manager, its
// Prometheus collectors and its own flags, under cAdvisor's names. The module of
// cAdvisor's command is not in the module registry, only its library is. Left out are the
// web pages, the REST API and the runtimes, none of which do anything in the comparison
// but make a program larger; so it costs rather less than the released one.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/cadvisor/lib/cache/memory"
	"github.com/google/cadvisor/lib/container"
	_ "github.com/google/cadvisor/lib/container/systemd/install"
	_ "github.com/google/cadvisor/lib/fs/overlay/install"
	_ "github.com/google/cadvisor/lib/fs/tmpfs/install"
	_ "github.com/google/cadvisor/lib/fs/vfs/install"
	"github.com/google/cadvisor/lib/manager"
	"github.com/google/cadvisor/lib/metrics"
	model "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/summary"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// The kinds that cAdvisor's command leaves out unless asked.
var disabled = container.MetricSet{
	container.MemoryNumaMetrics:              {},
	container.NetworkTcpUsageMetrics:         {},
	container.NetworkUdpUsageMetrics:         {},
	container.NetworkAdvancedTcpUsageMetrics: {},
	container.ProcessSchedulerMetrics:        {},
	container.ProcessMetrics:                 {},
	container.HugetlbUsageMetrics:            {},
	container.ReferencedMemoryMetrics:        {},
	container.CPUTopologyMetrics:             {},
	container.ResctrlMetrics:                 {},
	container.CPUSetMetrics:                  {},
}

func main() {
	address := flag.String("listen_ip", "127.0.0.1", "address to listen on")
	port := flag.Int("port", 8080, "port to listen on")
	keep := flag.Duration("storage_duration", 2*time.Minute, "how long samples are kept")
	flag.Var(&disabled, "disable_metrics", "kinds to leave out")
	klog.InitFlags(nil)
	flag.Parse()
	// As the command does, which computes percentiles of every container.
	manager.SummaryReaderFactory = func(spec model.ContainerSpec) (manager.SummaryReader, error) {
		return summary.New(spec)
	}
	included := container.AllMetrics.Difference(disabled)
	// Cgroups of every name; without a prefix it would show the root alone.
	prefixes := []string{""}
	m, err := manager.New(memory.New(*keep, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfigFlags, included, prefixes, nil, "", 0)
	if err != nil {
		klog.Fatalf("no manager: %v", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusCollector(m, metrics.DefaultContainerLabels, included, clock.RealClock{}, model.RequestOptions{
			IdType: model.TypeName, Count: 1, Recursive: true,
		}),
		metrics.NewPrometheusMachineCollector(m, included),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	if err := m.Start(); err != nil {
		klog.Fatalf("the manager does not start: %v", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	klog.Fatal(http.ListenAndServe(fmt.Sprintf("%s:%d", *address, *port), nil))
}
