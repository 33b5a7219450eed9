package sqlite

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"sync"

	"modernc.org/sqlite"
)

// registerFunctions registers isthmus_sum and isthmus_link with SQLite, once per process: the driver has a global table
// of functions.
var registerFunctions = sync.OnceValue(func() error { return errors.Join(registerSum(), registerLink()) })

func registerSum() error {
	return sqlite.RegisterDeterministicScalarFunction("isthmus_sum", -1,
		func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			var s summer
			for _, a := range args {
				if err := s.addValue(a); err != nil {
					return nil, err
				}
			}
			return s.sum(), nil
		})
}

// registerLink defines isthmus_link as the SHA-256 of its arguments: the previous event's link and the event's content.
func registerLink() error {
	return sqlite.RegisterDeterministicScalarFunction("isthmus_link", -1,
		func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			h := sha256.New()
			for _, a := range args {
				kind, b, err := encodeValue(a)
				if err != nil {
					return nil, err
				}
				h.Write(chunkHead(kind, b))
				h.Write(b)
			}
			return h.Sum(nil), nil
		})
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// summer computes a checksum of values. It detects accidents only: whoever can modify the file can modify the sum.
type summer struct{ crc uint64 }

func (s *summer) add(texts ...string) {
	for _, t := range texts {
		s.chunk('t', []byte(t))
	}
}

func (s *summer) addValue(v driver.Value) error {
	kind, b, err := encodeValue(v)
	if err == nil {
		s.chunk(kind, b)
	}
	return err
}

func encodeValue(v driver.Value) (kind byte, b []byte, err error) {
	switch v := v.(type) {
	case nil:
		return 'n', nil, nil
	case int64:
		return 'i', binary.BigEndian.AppendUint64(nil, uint64(v)), nil
	case string:
		return 't', []byte(v), nil
	case []byte:
		return 'b', v, nil
	default:
		return 0, nil, fmt.Errorf("a value of type %T has no checksum", v)
	}
}

func (s *summer) chunk(kind byte, b []byte) {
	s.crc = crc64.Update(crc64.Update(s.crc, crcTable, chunkHead(kind, b)), crcTable, b)
}

// chunkHead encodes kind and length, so that different rows have different encodings.
func chunkHead(kind byte, b []byte) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(b)))
}

func (s *summer) sum() int64 { return int64(s.crc) }
