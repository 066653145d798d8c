package xep0313

import (
	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Limits bound what one request may ask for, and what may wait for the disk. A
// zero field means its default.
type Limits struct {
	IDs            int   // values of a query's field "ids"; default 1000
	FormFields     int   // of a query's form; default 32
	PreferenceJIDs int   // in the two lists of one user together; default 2000
	QueueBytes     int64 // appended to one store and not yet durable and visible; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.IDs == 0 {
		l.IDs = 1000
	}
	if l.FormFields == 0 {
		l.FormFields = 32
	}
	if l.PreferenceJIDs == 0 {
		l.PreferenceJIDs = 2000
	}
	if l.QueueBytes == 0 {
		l.QueueBytes = 64 << 20
	}
	return l
}

// shed tells that a message is not even begun with, since too much waits for the
// disk that l is on; nil if it may. What was taken is never dropped: that would
// lose what somebody may have been told of. Changes of preferences, deletions and
// whatever else is in an audit class are few and always taken.
func (a *Archive) shed(l *log.Log) *stanza.Error {
	if l.Queued() < a.limits.QueueBytes {
		return nil
	}
	a.metrics.shed.Inc()
	return stanza.ResourceConstraint("too many messages are waiting to be archived; try again later")
}
