package config

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// The periods of mod_mam, in seconds; a month is 31 days, a year the mean one
// of the Gregorian calendar.
var periods = []struct {
	suffix  byte
	seconds int64
}{
	{'y', 31556952},
	{'m', 31 * 86400},
	{'w', 7 * 86400},
	{'d', 86400},
}

const durationForms = "an integer number of seconds, or an integer with the suffix d, w, m or y (day, week, month of 31 days, year), as in 3600, 1d or 2m"

// maxSeconds is what a time.Duration can hold.
const maxSeconds = math.MaxInt64 / int64(time.Second)

// ParseDuration reads a time span in mod_mam's units.
func ParseDuration(s string) (time.Duration, error) {
	digits, unit := s, int64(1)
	for _, p := range periods {
		if len(s) > 0 && s[len(s)-1] == p.suffix {
			digits, unit = s[:len(s)-1], p.seconds
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time span; allowed is %s", s, durationForms)
	}
	if n < 1 || n > maxSeconds/unit {
		return 0, fmt.Errorf("%s is out of range; allowed is from 1 (second) to 292y", s)
	}
	return time.Duration(n*unit) * time.Second, nil
}

// FormatDuration writes d as an option takes it, in the largest unit that fits.
func FormatDuration(d time.Duration) string {
	seconds := int64(d / time.Second)
	for _, p := range periods {
		if seconds > 0 && seconds%p.seconds == 0 {
			return strconv.FormatInt(seconds/p.seconds, 10) + string(p.suffix)
		}
	}
	return strconv.FormatInt(seconds, 10)
}
