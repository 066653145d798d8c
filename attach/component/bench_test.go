package component

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkRoundTrip is the time that one message for both of its archives waits.
func BenchmarkRoundTrip(b *testing.B) {
	f := start(b, func(c *Config) { c.Archive = newArchive(b, vfs.Default) })
	p := f.up()
	p.SetDeadline(time.Time{})
	for b.Loop() {
		p.archived(testHost,
			appendOf("out", "alice@example.org", "bob@example.org", fmt.Sprint("a", p.n), "But soft, what light through yonder window breaks?"),
			fmt.Sprintf(`<append dir='in' owner='bob@example.org' peer='alice@example.org/here' key='b%d' ref='1'/>`, p.n))
	}
}

// BenchmarkAppends sends messages in batches of 1 to 30 appends, as fast as the
// window allows, over a socket to an archive on disk. An operation is an append.
func BenchmarkAppends(b *testing.B) {
	var requests [][]byte
	for n, left := 1, b.N; left > 0; n = n%30 + 1 {
		size := min(n, left)
		left -= size
		var appends []string
		for i := range size {
			k := left + i
			owner, peer := fmt.Sprintf("user%d@example.org", k/2%1000), fmt.Sprintf("user%d@example.org", (k/2+7)%1000)
			if k%2 == 0 || i == 0 {
				appends = append(appends, appendOf("out", owner, peer, fmt.Sprint("key", k), "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun."))
			} else {
				appends = append(appends, fmt.Sprintf(`<append dir='in' owner='%s' peer='%s/here' key='key%d' ref='%d'/>`, peer, owner, k, i))
			}
		}
		requests = append(requests, fmt.Appendf(nil, "<iq type='set' id='b%d' from='example.org' to='%s'>%s</iq>", len(requests), testDomain, batch(appends...)))
	}
	f := start(b, func(c *Config) { c.Archive = newArchive(b, vfs.Default) })
	p := f.up()
	p.SetDeadline(time.Time{})
	b.ResetTimer()
	b.ReportAllocs()
	go func() {
		for _, r := range requests {
			if _, err := p.Write(r); err != nil {
				return
			}
		}
	}()
	answered := 0
	for answered < len(requests) {
		chunk, err := p.in.ReadSlice('>')
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
		if bytes.Equal(chunk, []byte("</iq>")) {
			answered++
		}
	}
	b.StopTimer()
	st := f.status()
	if st.Appends != uint64(b.N) || f.metric("mamlog_link_appends_total", "result", "archived") != float64(b.N) {
		b.Errorf("of %d appends %d were answered", b.N, st.Appends)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(st.P50.Microseconds()), "p50-µs")
	b.ReportMetric(float64(st.P99.Microseconds()), "p99-µs")
}
