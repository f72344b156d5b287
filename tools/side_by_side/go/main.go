// The Go client in the comparison: the non-blocking WriteAPI as its README shows it, with the channel of errors drained and
// the callback of failed writes set. What it is told goes to the journal, whose words are in ../README.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	apihttp "github.com/influxdata/influxdb-client-go/v2/api/http"
	"github.com/influxdata/influxdb-client-go/v2/api/write"
)

const base, step = int64(1_700_000_000_000_000_000), int64(1_000_000)

var (
	journal *os.File
	mutex   sync.Mutex
)

func note(words ...any) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Fprintln(journal, words...)
}

// numbers gives the numbers of the points of a batch.
func numbers(batch string) string {
	var found []string
	for _, line := range strings.Split(strings.TrimSpace(batch), "\n") {
		if at := strings.LastIndexByte(line, ' '); at >= 0 {
			if time, err := strconv.ParseInt(line[at+1:], 10, 64); err == nil {
				found = append(found, strconv.FormatInt((time-base)/step, 10))
			}
		}
	}
	return strings.Join(found, " ")
}

func main() {
	url, path := flag.String("url", "", ""), flag.String("journal", "", "")
	flag.String("spool", "", "not known to this client")
	first, burst, points := flag.Int64("first", 0, ""), flag.Int64("burst", 0, ""), flag.Int64("points", 0, "")
	rate, batch, flush := flag.Int64("rate", 100, ""), flag.Uint("batch", 100, ""), flag.Uint("flush-ms", 1000, "")
	special, every := flag.String("special", "none", ""), flag.Int64("every", 100, "")
	flag.Parse()
	var err error
	if journal, err = os.OpenFile(*path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		panic(err)
	}

	options := influxdb2.DefaultOptions().SetBatchSize(*batch).SetFlushInterval(*flush)
	client := influxdb2.NewClientWithOptions(*url, "side-token", options)
	api := client.WriteAPI("side", "side")
	errors := api.Errors()
	drained := make(chan struct{})
	go func() {
		for err := range errors {
			note("e", strings.ReplaceAll(err.Error(), "\n", " "))
		}
		close(drained)
	}()
	// The callback hears of failures that may pass. The client gives a batch up after the last of its retries.
	api.SetWriteFailedCallback(func(batch string, _ apihttp.Error, attempts uint) bool {
		if attempts >= options.MaxRetries() {
			note("f", numbers(batch))
		} else {
			note("d", numbers(batch))
		}
		return true
	})

	var calls []time.Duration
	put := func(i int64) {
		measurement, value := "side", any(float64(i%1000)/2)
		if i%*every == *every/2 {
			switch *special {
			case "conflict":
				value = "broken"
			case "poison":
				measurement = "poison"
			case "nan":
				value = math.NaN()
				if i%(2**every) >= *every {
					value = math.Inf(1)
				}
			}
		}
		tags := map[string]string{"device": "d" + strconv.FormatInt(i%10, 10)}
		point := write.NewPoint(measurement, tags, map[string]any{"value": value}, time.Unix(0, base+i*step))
		before := time.Now()
		api.WritePoint(point)
		calls = append(calls, time.Since(before))
	}
	note("s")
	i := *first
	for ; i < *first+*burst; i++ {
		put(i)
	}
	note("b")
	began := time.Now()
	for n := int64(0); n < *points; n++ {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(*rate))))
		put(i)
		note("w", i)
		i++
	}

	sort.Slice(calls, func(a, b int) bool { return calls[a] < calls[b] })
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	result := map[string]any{"client": "influxdb-client-go", "next": i, "version": version()}
	if len(calls) > 0 {
		result["longest_ms"] = ms(calls[len(calls)-1])
		result["p999_ms"] = ms(calls[(len(calls)-1)*999/1000])
	}
	text, _ := json.Marshal(result)
	note("c", string(text))
	before := time.Now()
	api.Flush()
	client.Close()
	<-drained
	result["close_ms"], result["close_says"] = ms(time.Since(before)), "nothing: Flush and Close return no value"
	text, _ = json.Marshal(result)
	fmt.Println(string(text))
}

// version is that of the client as it was built in.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/influxdata/influxdb-client-go/v2" {
				return module.Version
			}
		}
	}
	return "unknown"
}
