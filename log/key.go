package log

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// The keys of the log's store. The first byte tells the kind and is
// unchangeable.
//
//	meta    0x01 | name                                       → by name
//	class   0x02 | class uint16                               → name of the class
//	once    0x03 | generation uint32 | SHA-256(owner,key)[:16] → archive id of the record
//	import  0x04 | class uint16 | archive id 16 bytes | ulid  → empty
//	record  0x10 | class uint16 | ulid 16 bytes               → Event (protobuf)
//	personal 0x11 | ulid 16 bytes                             → salt 16 bytes, Event (protobuf), see personal.go
//
// Numbers are big-endian, so the records of a class lie in the order of their
// ids, and everything in it older than a moment is one range. Records that have
// an archive id of their own, from the past, lie behind that range; import keys
// find them.
const (
	kindMeta   byte = 0x01
	kindClass  byte = 0x02
	kindOnce   byte = 0x03
	kindImport byte = 0x04
	kindRecord byte = 0x10

	kindPersonal byte = 0x11
)

const recordKeyLen = 1 + 2 + 16

var (
	keyFormat = append([]byte{kindMeta}, "format"...) // → uint32, see formatVersion
	keyTime   = append([]byte{kindMeta}, "time"...)   // → uint64, the retention time in ms since 1970
	keyLast   = append([]byte{kindMeta}, "last"...)   // → the greatest id ever committed
)

func recordKey(c Class, id ulid.ULID) []byte {
	return appendRecordKey(make([]byte, 0, recordKeyLen), c, id)
}

func appendRecordKey(k []byte, c Class, id ulid.ULID) []byte {
	k = append(k, kindRecord)
	k = binary.BigEndian.AppendUint16(k, uint16(c))
	return append(k, id[:]...)
}

// apartClasses is how many classes have tables of their own in the store; the others
// share theirs, so that many classes don't make many small tables.
const apartClasses = 4

// apart tells the engine where the tables that it writes must end: behind the keys of
// one kind, and of records, of one class. Records come in the order of their keys, so
// a table that has nothing else overlaps no other and moves down as it is. With a key
// in it that each commit writes, or the hash of an idempotency key, all tables would
// be merged over and over.
func apart(start []byte) (_ pebble.SpanPolicy, end []byte, _ error) {
	end = []byte{start[0] + 1}
	if start[0] == kindRecord && len(start) >= 3 {
		if c := binary.BigEndian.Uint16(start[1:]); c < apartClasses {
			end = binary.BigEndian.AppendUint16([]byte{kindRecord}, c+1)
		}
	}
	return pebble.SpanPolicy{}, end, nil
}

func recordID(key []byte) (id ulid.ULID) {
	copy(id[:], key[3:])
	return id
}

const importKeyLen = 1 + 2 + 16 + 16

// importKey with no record is what the keys of that archive id begin with.
func importKey(c Class, archived ulid.ULID, record ...byte) []byte {
	k := make([]byte, 0, importKeyLen)
	k = append(k, kindImport)
	k = binary.BigEndian.AppendUint16(k, uint16(c))
	k = append(k, archived[:]...)
	return append(k, record...)
}

func classKey(c Class) []byte {
	return binary.BigEndian.AppendUint16([]byte{kindClass}, uint16(c))
}

// firstAt is the smallest id of the millisecond that t lies in.
func firstAt(t time.Time) (id ulid.ULID) {
	if ms := t.UnixMilli(); ms > 0 {
		_ = id.SetTime(min(uint64(ms), ulid.MaxTime()))
	}
	return id
}

// rememberFor is how long an idempotency key is remembered at least; at most it
// is twice as long, because keys are forgotten a generation at a time.
const rememberFor = 7 * 24 * time.Hour

func generation(t time.Time) uint32 { return uint32(t.UnixMilli() / rememberFor.Milliseconds()) }

func onceKey(generation uint32, owner, key string) []byte {
	k := binary.BigEndian.AppendUint32([]byte{kindOnce}, generation)
	sum := sha256.Sum256([]byte(owner + "\x00" + key))
	return append(k, sum[:16]...)
}
