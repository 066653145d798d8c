package xep0313

import "time"

// stampLayout is the profile of XEP-0082 that stamps are in.
const stampLayout = "2006-01-02T15:04:05.000Z"

// stamp is a time, in ms since 1970.
func stamp(unixMilli int64) string { return time.UnixMilli(unixMilli).UTC().Format(stampLayout) }

// stamps writes one stamp after the other, several times as fast as package time
// where they are of the same day, as those of a page mostly are.
type stamps struct {
	day  int64  // since 1970
	date []byte // of day, up to the T; empty before the first stamp
}

func (s *stamps) append(b []byte, unixMilli int64) []byte {
	const perDay = 24 * 60 * 60 * 1000
	day, ms := unixMilli/perDay, unixMilli%perDay
	if ms < 0 {
		day, ms = day-1, ms+perDay
	}
	if day != s.day || len(s.date) == 0 {
		s.day = day
		s.date = time.UnixMilli(day*perDay).UTC().AppendFormat(s.date[:0], "2006-01-02T")
	}
	b = append(append(b, s.date...), "00:00:00.000Z"...)
	out := b[len(b)-len("00:00:00.000Z"):]
	seconds := ms / 1000
	putTwo(out[0:], seconds/3600)
	putTwo(out[3:], seconds/60%60)
	putTwo(out[6:], seconds%60)
	out[9] = byte('0' + ms/100%10)
	putTwo(out[10:], ms%100)
	return b
}

func putTwo(b []byte, n int64) { b[0], b[1] = byte('0'+n/10), byte('0'+n%10) }
