package projections

import (
	"encoding/binary"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// The keys of the rows. The first byte tells the kind. 00 ends a JID or a host
// name, which contain no such byte; numbers are big-endian.
//
//	meta          0x01 | name                                           → by name
//	messages      0x10 | class uint16 | bucket uint32 | 1 | owner 00 ^ulid         → chunk of messages
//	conversation  0x10 | class uint16 | bucket uint32 | 2 | owner 00 peer 00 ^ulid → chunk of messages, or of their ordinals
//	floor         0x10 | class uint16 | bucket uint32 | 3 | owner 00        → ulid, see cut.go
//	preferences   0x20 | owner                                          → ulid, Preferences
//	pref. change  0x21 | owner 00 ulid                                  → PreferencesChanged
//	policy change 0x22 | host 00 ulid                                   → PolicyChanged
//	account       0x23 | host 00 localpart                              → Credentials
//	roster item   0x24 | owner 00 contact                               → RosterItem
//	deleted       0x25 | owner                                          → ulid of the account's or room's deletion, or of the order to erase
//	erased        0x26 | owner                                          → ulid of the event that says it was done
//	retention     0x27 | owner                                          → Retention
//	tree          0x30 | index uint64                                   → hash of the audit tree, as tlog.StoredHashIndex counts them
//	leaf          0x31 | n uint64                                       → ulid of the audit record that is leaf n
//
// The ulid of a row of messages is the archive id of its oldest: that of the log's
// record, or for an import the one that the event names. Its bits are inverted, so
// that the newest row comes first: clients read backwards from the end, and the
// engine steps forward in less time than backward.
//
// A bucket is a span of time, counted from 1970 in the class's width. With the
// bucket first, expiring it is one range of keys for all owners together, and
// nothing merges old buckets with new ones.
//
// The ordinal of a message is its place in its archive within the bucket, or in a
// conversation's row its place in the conversation within the bucket, both from 1
// without gaps. So the number of messages between two is a subtraction.
const (
	kindMeta        byte = 0x01
	kindBucket      byte = 0x10
	kindPreferences byte = 0x20
	kindPrefChange  byte = 0x21
	kindPolicy      byte = 0x22
	kindAccount     byte = 0x23
	kindRoster      byte = 0x24
	kindDeleted     byte = 0x25
	kindErased      byte = 0x26
	kindRetention   byte = 0x27
	kindTree        byte = 0x30
	kindLeaf        byte = 0x31

	partMessage      byte = 1
	partConversation byte = 2
	partFloor        byte = 3
)

var (
	keyFormat   = append([]byte{kindMeta}, "format"...)   // → uint32, see formatVersion
	keyPosition = append([]byte{kindMeta}, "position"...) // → ulid of the last record folded
	keyComplete = append([]byte{kindMeta}, "complete"...) // → empty; missing while a rebuild is under way
)

// widthKey → bucket width of the class in ms, uint64. It is a choice of the
// configuration and does not follow from the log, as all meta rows.
func widthKey(c log.Class) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{kindMeta}, "width"...), uint16(c))
}

func bucketKey(c log.Class, bucket uint32) []byte {
	return appendBucketKey(make([]byte, 0, 96), c, bucket)
}

func appendBucketKey(k []byte, c log.Class, bucket uint32) []byte {
	k = append(k, kindBucket)
	k = binary.BigEndian.AppendUint16(k, uint16(c))
	return binary.BigEndian.AppendUint32(k, bucket)
}

// setKeyBucket moves the key of a row, or a bound of such, to another bucket.
func setKeyBucket(key []byte, bucket uint32) { binary.BigEndian.PutUint32(key[3:], bucket) }

// rowsPrefix is what the keys of an archive, or with a peer those of a
// conversation, begin with in one bucket.
func rowsPrefix(c log.Class, bucket uint32, owner, peer string) []byte {
	return appendRowsPrefix(make([]byte, 0, 96), c, bucket, owner, peer)
}

func appendRowsPrefix(k []byte, c log.Class, bucket uint32, owner, peer string) []byte {
	k = appendBucketKey(k, c, bucket)
	if peer == "" {
		k = append(k, partMessage)
		k = append(k, owner...)
		return append(k, 0)
	}
	k = append(k, partConversation)
	k = append(k, owner...)
	k = append(k, 0)
	k = append(k, peer...)
	return append(k, 0)
}

// appendRowID appends to prefix what the key of the row with that id ends with.
func appendRowID(prefix []byte, id ulid.ULID) []byte {
	hi, lo := ^binary.BigEndian.Uint64(id[:8]), ^binary.BigEndian.Uint64(id[8:])
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(prefix, hi), lo)
}

// rowID is the id at the end of the key of a row of messages.
func rowID(key []byte) (id ulid.ULID) {
	key = key[len(key)-len(id):]
	binary.BigEndian.PutUint64(id[:8], ^binary.BigEndian.Uint64(key))
	binary.BigEndian.PutUint64(id[8:], ^binary.BigEndian.Uint64(key[8:]))
	return id
}

// eventID is the ulid at the end of the key of any other row.
func eventID(key []byte) (id ulid.ULID) {
	copy(id[:], key[len(key)-len(id):])
	return id
}

// end is the first key behind all that begin with prefix.
func end(prefix []byte) []byte {
	e := append([]byte(nil), prefix...)
	for i := len(e) - 1; i >= 0; i-- {
		if e[i]++; e[i] != 0 {
			return e[:i+1]
		}
	}
	return nil
}

func ownedKey(kind byte, owner string, rest ...byte) []byte {
	k := append([]byte{kind}, owner...)
	k = append(k, 0)
	return append(k, rest...)
}

// bucketWidth is how long a bucket lasts where messages are kept for so long
// (0: for ever). What has expired leaves the disk a bucket at a time, so a
// message stays there for up to one width after it became invisible; a finer cut
// would make a query that spans all buckets look into more of them.
func bucketWidth(retention time.Duration) time.Duration {
	const day = 24 * time.Hour
	switch {
	case retention == 0:
		return 365 * day
	case retention <= day:
		return time.Hour
	case retention <= 15*day:
		return day
	case retention <= 100*day:
		return 7 * day
	case retention <= 800*day:
		return 30 * day
	}
	return 365 * day
}
