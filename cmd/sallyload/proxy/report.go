package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// results are the figures by load, proxy and kind, one of each run.
type results map[string][]float64

func key(load, proxy, kind string) string { return load + "\x00" + proxy + "\x00" + kind }

func (r results) add(load, proxy, kind string, value float64) {
	k := key(load, proxy, kind)
	r[k] = append(r[k], value)
}

func (r results) median(load, proxy, kind string) (float64, bool) {
	all := slices.Sorted(slices.Values(r[key(load, proxy, kind)]))
	if len(all) == 0 {
		return 0, false
	}
	return all[len(all)/2], true
}

// names are how the proxies are called in the table.
var names = map[string]string{"sallyport": "Sallyport", "nginx": "nginx", "caddy": "Caddy"}

// print writes both tables. Ratios are of the first proxy to the others.
func (r results) print(w io.Writer, proxies []string, runs int) {
	fmt.Fprintln(w, "| load | proxy | CPU µs/request | *ratio* | requests/s | p99 ms |\n|---|---|--:|--:|--:|--:|")
	for _, l := range loads {
		own, _ := r.median(l.name, proxies[0], "cpu")
		for _, p := range proxies {
			cpu, ok := r.median(l.name, p, "cpu")
			if !ok {
				continue
			}
			rate, _ := r.median(l.name, p, "rate")
			p99, _ := r.median(l.name, p, "p99")
			fmt.Fprintf(w, "| %s | %s | %.1f | %s | %.0f | %.1f |\n", l.name, names[p], cpu, ratio(p == proxies[0], own, cpu), rate, p99)
		}
	}
	fmt.Fprintln(w, "\n| idle | proxy | KiB/WebSocket | *ratio* |\n|---|---|--:|--:|")
	for _, n := range sockets {
		name := fmt.Sprintf("%d WebSockets", n)
		own, _ := r.median(name, proxies[0], "memory")
		for _, p := range proxies {
			if kib, ok := r.median(name, p, "memory"); ok {
				fmt.Fprintf(w, "| %s | %s | %.1f | %s |\n", name, names[p], kib, ratio(p == proxies[0], own, kib))
			}
		}
	}
	fmt.Fprintf(w, "\nMedians of %d runs. %d CPUs, %s.\n", runs, runtime.NumCPU(), runtime.Version())
}

func ratio(self bool, own, other float64) string {
	if self || other == 0 {
		return ""
	}
	return fmt.Sprintf("**%.2f**", own/other)
}
