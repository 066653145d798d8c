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
	b = append(b, "0000-00-00T00:00:00.000Z"...)
	out := b[len(b)-len(stampLayout):]
	putTwo(out[0:], uint64(year)/100)
	putTwo(out[2:], uint64(year)%100)
	putTwo(out[5:], uint64(month))
	putTwo(out[8:], uint64(day))
	putTimeOfDay(out[len(stampLayout)-timeOfDayBytes:], unixMilli)
	return b
}

// timeOfDayBytes are those at the end of a stamp that are of its time of day, which
// is all that differs between stamps of one day.
const timeOfDayBytes = len("15:04:05.000Z")

const msPerDay = 24 * 60 * 60 * 1000

// dayOf counts days from 1970.
func dayOf(unixMilli int64) int64 {
	if unixMilli < 0 {
		unixMilli -= msPerDay - 1
	}
	return unixMilli / msPerDay
}

// putTimeOfDay writes those digits where a stamp is.
func putTimeOfDay(b []byte, unixMilli int64) {
	ms := uint64(unixMilli - dayOf(unixMilli)*msPerDay)
	sec := ms / 1000
	ms -= sec * 1000
	b = b[:timeOfDayBytes]
	putTwo(b[0:], sec/3600)
	putTwo(b[3:], sec/60%60)
	putTwo(b[6:], sec%60)
	b[9] = byte('0' + ms/100)
	putTwo(b[10:], ms%100)
}

// twoDigits are those of the numbers below 100.
var twoDigits = func() (d [100][2]byte) {
	for n := range d {
		d[n] = [2]byte{byte('0' + n/10), byte('0' + n%10)}
	}
	return d
}()

func putTwo(b []byte, n uint64) { *(*[2]byte)(b) = twoDigits[n] }
