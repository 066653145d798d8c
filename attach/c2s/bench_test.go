package c2s

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkMessages measures messages from end to end: one account of each pair
// sends, with a window of unanswered messages, and the other one reads them. The
// clients run in the same process and share the processors.
func BenchmarkMessages(b *testing.B) {
	const pairs, window = 32, 8
	f := start(b, nil)
	clients := make([][2]*client, pairs)
	for i := range clients {
		from, to := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		f.account(from, to)
		clients[i] = [2]*client{f.online(from, "r"), f.online(to, "r")}
	}
	var wg sync.WaitGroup
	b.ResetTimer()
	for i, pair := range clients {
		n := b.N / pairs
		if i < b.N%pairs {
			n++
		}
		for _, c := range pair {
			c.conn.SetDeadline(time.Now().Add(10 * time.Minute))
		}
		tokens := make(chan struct{}, window)
		wg.Add(2)
		go func() {
			defer wg.Done()
			message := []byte("<message to='" + pair[1].full + "' type='chat' id='x'><body>" + strings.Repeat("x", 200) + "</body></message>")
			for range n {
				tokens <- struct{}{}
				if _, err := pair[0].conn.Write(message); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		go func() {
			defer wg.Done()
			end := []byte("</message>")
			for seen := 0; seen < n; {
				part, err := pair[1].in.ReadSlice('>')
				if err != nil {
					b.Error(err)
					return
				}
				if bytes.HasSuffix(part, end) {
					seen++
					<-tokens
				}
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
