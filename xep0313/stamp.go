package xep0313

import "time"

// stampLayout is the profile of XEP-0082 that stamps are in.
const stampLayout = "2006-01-02T15:04:05.000Z"

// stamp is a time, in ms since 1970.
func stamp(unixMilli int64) string { return time.UnixMilli(unixMilli).UTC().Format(stampLayout) }

// appendStamp appends stamp(unixMilli), several times as fast as package time does.
func appendStamp(b []byte, unixMilli int64) []byte {
	t := time.UnixMilli(unixMilli).UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, stampLayout)
	}
	const perDay = 24 * 60 * 60 * 1000
	ms := uint64((unixMilli%perDay + perDay) % perDay)
	b = append(b, "0000-00-00T00:00:00.000Z"...)
	out := b[len(b)-stampBytes:]
	putTwo(out[0:], uint64(year)/100)
	putTwo(out[2:], uint64(year)%100)
	putTwo(out[5:], uint64(month))
	putTwo(out[8:], uint64(day))
	putTwo(out[11:], ms/3600_000)
	putTwo(out[14:], ms/60_000%60)
	putTwo(out[17:], ms/1000%60)
	out[20] = byte('0' + ms/100%10)
	putTwo(out[21:], ms%100)
	return b
}

func putTwo(b []byte, n uint64) { b[0], b[1] = byte('0'+n/10), byte('0'+n%10) }
