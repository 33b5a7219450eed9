package relational

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// timeValue encodes a time: microseconds since 1970, NULL for the zero time.
func timeValue(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// boolValue encodes a bool.
func boolValue(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// timeOf scans the result of timeValue.
type timeOf struct{ t *time.Time }

func (s timeOf) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*s.t = time.Time{}
	case int64:
		*s.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a time is kept as %T", v)
	}
	return nil
}

// jsonOf scans JSON into p. NULL leaves it unchanged.
type jsonOf struct{ p any }

func (s jsonOf) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return json.Unmarshal([]byte(v), s.p)
	default:
		return fmt.Errorf("JSON is kept as %T", v)
	}
}

// addrOf scans an address as text. NULL is the zero address.
type addrOf struct{ a *netip.Addr }

func (s addrOf) Scan(v any) (err error) {
	switch v := v.(type) {
	case nil:
		*s.a = netip.Addr{}
	case string:
		*s.a, err = netip.ParseAddr(v)
	default:
		err = fmt.Errorf("an address is kept as %T", v)
	}
	return err
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
