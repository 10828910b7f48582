// Asks an agent for what cAdvisor's own clients ask for, with their own packages,
// and says what they made of it: a line for each check, and exit status 1 where
// one failed.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/cadvisor/client"
	clientv2 "github.com/google/cadvisor/client/v2"
	info "github.com/google/cadvisor/info/v1"
	infov2 "github.com/google/cadvisor/info/v2"
)

var failed bool

func check(what string, ok bool, detail ...interface{}) {
	word := "ok   "
	if !ok {
		word, failed = "FAIL ", true
	}
	fmt.Println(word, what, fmt.Sprint(detail...))
}

func must(what string, err error) bool {
	if err != nil {
		check(what, false, err)
	}
	return err == nil
}

func samples(what string, stats []*info.ContainerStats) {
	check(what+": has samples", len(stats) > 0)
	for i, s := range stats {
		ok := s.Cpu.Usage.Total > 0 && s.Memory.Usage > 0 && s.Memory.WorkingSet > 0 && !s.Timestamp.IsZero()
		check(what+": a sample is filled", ok, " at ", s.Timestamp)
		if i > 0 {
			before := stats[i-1]
			rises := s.Timestamp.After(before.Timestamp) && s.Cpu.Usage.Total >= before.Cpu.Usage.Total
			check(what+": samples follow each other", rises)
		}
	}
}

// Kinds that are off by default were switched on: each sample has their figures, and not
// only the newest. Without files of a kind the kernel has none for its cgroup.
func kinds(what string, stats []*info.ContainerStats) {
	var before info.CpuSchedstat
	for i, s := range stats {
		now := s.Cpu.Schedstat
		check(what+": the scheduler's figures", now.RunTime > 0 && now.RunPeriods > 0, now)
		rises := now.RunTime >= before.RunTime && now.RunPeriods >= before.RunPeriods
		check(what+": they rise", i == 0 || rises, before, now)
		before = now
		tcp := s.Network.TcpAdvanced
		check(what+": what TCP did", tcp.RtoAlgorithm > 0 && tcp.InSegs > 0 && tcp.OutSegs > 0, tcp.InSegs)
		if _, err := os.Stat("/proc/self/numa_maps"); err == nil {
			numa := s.Memory.HierarchicalData.NumaStats
			check(what+": pages by node", len(numa.Anon) > 0 && len(numa.File) > 0, numa)
		}
	}
}

func version1(url, path string) {
	c, err := client.NewClient(url)
	if !must("v1 client", err) {
		return
	}
	if machine, err := c.MachineInfo(); must("v1 machine", err) {
		check("v1 machine", machine.NumCores > 0 && machine.MemoryCapacity > 1<<20 && machine.BootID != "", machine.NumCores)
		check("v1 machine's filesystems", len(machine.Filesystems) > 0)
	}
	query := &info.ContainerInfoRequest{NumStats: 3}
	if root, err := c.ContainerInfo("/", query); must("v1 root", err) {
		check("v1 root", root.Name == "/" && root.Spec.HasCpu && root.Spec.HasMemory && root.Spec.Memory.Limit > 0)
		check("v1 root's children", len(root.Subcontainers) > 0)
		check("v1 number of samples", len(root.Stats) == 3, len(root.Stats))
		samples("v1 root", root.Stats)
		kinds("v1 root", root.Stats)
	}
	if all, err := c.SubcontainersInfo(path, query); must("v1 subcontainers", err) {
		check("v1 subcontainers", len(all) == 2, len(all))
		for _, one := range all {
			check("v1 subcontainer is below", strings.HasPrefix(one.Name, path), one.Name)
			check("v1 subcontainer was made", time.Since(one.Spec.CreationTime) < time.Hour, one.Spec.CreationTime)
		}
	}
	if docker, err := c.AllDockerContainers(query); must("v1 docker", err) {
		for _, one := range docker {
			check("v1 docker has a name", len(one.Aliases) > 0 && one.Namespace == "docker", one.Aliases)
		}
	}
	if events, err := c.EventStaticInfo("?creation_events=true&subcontainers=true&max_events=3"); must("v1 events", err) {
		check("v1 events", len(events) == 3 && events[0].EventType == info.EventContainerCreation, len(events))
	}
	_, err = c.ContainerInfo("/nowhere", query)
	check("v1 unknown container is an error", err != nil, err)
}

func version2(url, path string) {
	c, err := clientv2.NewClient(url)
	if !must("v2 client", err) {
		return
	}
	if version, err := c.VersionInfo(); must("v2 version", err) {
		check("v2 version", strings.HasPrefix(strings.Trim(version, `"`), "v"), version)
	}
	if attributes, err := c.Attributes(); must("v2 attributes", err) {
		check("v2 attributes", attributes.KernelVersion != "" && attributes.NumCores > 0, attributes.KernelVersion)
	}
	if machine, err := c.MachineInfo(); must("v2 machine", err) {
		check("v2 machine", machine.NumCores > 0)
	}
	if all, err := c.MachineStats(); must("v2 machinestats", err) {
		check("v2 machinestats", len(all) > 1)
		last := all[len(all)-1]
		check("v2 machine's CPU", last.Cpu != nil && last.CpuInst != nil && last.CpuInst.Usage.Total > 0)
		check("v2 machine's scheduler and TCP", last.Cpu.Schedstat.RunTime > 0 && last.Network != nil && last.Network.TcpAdvanced.InSegs > 0)
		check("v2 machine's filesystems", len(last.Filesystem) > 0 && last.Filesystem[0].Capacity != nil)
	}
	request := &infov2.RequestOptions{IdType: infov2.TypeName, Count: 2, Recursive: true}
	if stats, err := c.Stats(path, request); must("v2 stats", err) {
		check("v2 stats", len(stats) == 2, len(stats))
		for name, one := range stats {
			check("v2 samples of "+name, len(one.Stats) == 2 && one.Spec.HasMemory && one.Spec.HasCpu, len(one.Stats))
			for _, s := range one.Stats {
				filled := s.Memory != nil && s.Memory.Usage > 0 && s.Cpu != nil && s.Cpu.Usage.Total > 0
				check("v2 sample is filled", filled && s.CpuInst != nil)
			}
		}
	}
	none := time.Duration(0)
	request.MaxAge = &none
	if stats, err := c.Stats(path, request); must("v2 fresh stats", err) {
		for _, one := range stats {
			age := time.Since(one.Stats[len(one.Stats)-1].Timestamp)
			check("v2 sample is fresh", age < 5*time.Second, age)
		}
	}
}

func main() {
	url, path := os.Args[1], os.Args[2]
	version1(url, path)
	version2(url, path)
	if failed {
		os.Exit(1)
	}
}
