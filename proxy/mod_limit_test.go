package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBuckets counts by the clock.
func TestBuckets(t *testing.T) {
	z := &requestZone{rate: 1000, size: 1 << 20, buckets: newBuckets()}
	now := millis()
	ask := func(at, burst int64) (bucketVerdict, int64) {
		var held *bucket
		return z.find([]byte("k"), now+at, burst, true, &held)
	}
	for _, c := range []struct {
		at, burst int64
		verdict   bucketVerdict
		excess    int64
	}{
		{0, 0, bucketCounted, 0},
		{0, 0, bucketBusy, 1000},
		{500, 0, bucketBusy, 500},
		{500, 1000, bucketCounted, 500},
		{1000, 1000, bucketCounted, 1000},
		{1000, 1000, bucketBusy, 2000},
		{2000, 0, bucketBusy, 1000},
		{10000, 0, bucketCounted, 0},
		{9000, 5000, bucketCounted, 1000}, // a clock that another goroutine read before
		{1 << 50, 0, bucketCounted, 0},
	} {
		if v, e := ask(c.at, c.burst); v != c.verdict || e != c.excess {
			t.Errorf("at %d, burst %d: %d, %d", c.at, c.burst, v, e)
		}
	}
}

// TestBucketMemory is bounded: the oldest keys make room.
func TestBucketMemory(t *testing.T) {
	z := &requestZone{rate: 1000, size: minZoneSize, buckets: newBuckets()}
	var held *bucket
	for i := range 10000 {
		if v, _ := z.find(fmt.Appendf(nil, "key %d", i), millis(), 0, true, &held); v != bucketCounted {
			t.Fatal(i, v)
		}
	}
	if n := len(z.buckets.all); n != minZoneSize/128 || z.buckets.used != minZoneSize {
		t.Errorf("%d keys, %d bytes", n, z.buckets.used)
	}
	if v, _ := z.find([]byte(strings.Repeat("x", minZoneSize)), millis(), 0, true, &held); v != bucketFull {
		t.Error(v)
	}
	// what is held stays
	if v, _ := z.find([]byte("held"), millis(), 0, false, &held); v != bucketHeld {
		t.Fatal(v)
	}
	for i := range 1000 {
		z.find(fmt.Appendf(nil, "other %d", i), millis(), 0, true, new(*bucket))
	}
	if z.buckets.all["held"] != held {
		t.Error("lost")
	}
	if e := z.take(held, millis()); e != 0 || held.holds != 0 {
		t.Error(e, held.holds)
	}
}

func TestLimitsOnTheWire(t *testing.T) {
	const zones = `limit_req_zone $arg_k zone=a:32k rate=1r/s; limit_req_zone $arg_l zone=b:32k rate=1r/m; limit_conn_zone $arg_c zone=c:32k;`
	r := run(t, "error_log logs/error.log info; pid nginx.pid; events {} http { access_log off; "+zones+`
		server { listen unix:%dir%/s; add_header X-R "$limit_req_status $limit_conn_status" always; root html;
			location /one { limit_req zone=a; limit_req_status 429; limit_req_log_level warn; }
			location /two { limit_req zone=a burst=5 nodelay; limit_req zone=b; }
			location /dry { limit_req zone=a; limit_req_dry_run on; }
			location /conn { limit_conn c 1; }
		} }`)
	ask := func(target, want string) {
		t.Helper()
		raw := r.ask("s", "GET "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		status := strings.TrimSpace(raw[len("HTTP/1.1 "):][:3])
		_, fields, _ := strings.Cut(raw, "X-R: ")
		field, _, _ := strings.Cut(fields, "\r\n")
		if got := status + " " + strings.TrimSpace(field); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	ask("/one", "404 ")
	ask("/one?k=1", "404 PASSED")
	ask("/one?k=1", "429 REJECTED")
	ask("/one?k=2", "404 PASSED")
	ask("/dry?k=2", "404 REJECTED_DRY_RUN")
	ask("/two?k=3&l=3", "404 PASSED")
	ask("/two?k=3&l=3", "503 REJECTED")
	ask("/two?k=3", "404 PASSED") // what b refused was not counted in a
	ask("/conn?c=1", "404 PASSED")
	ask("/conn?c=1", "404 PASSED")
	log := r.read("logs/error.log")
	for _, want := range []string{
		`[warn] `, `limiting requests, excess: `, `by zone "a"`, `limiting requests, dry run, excess: `, `by zone "b"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}

// TestLimitsAndReload: counters stay, keys must.
func TestLimitsAndReload(t *testing.T) {
	old, other := newTable(&Options{}), newTable(&Options{})
	old.requestZones["z"] = &requestZone{name: "z", text: "$a", size: 1, buckets: newBuckets()}
	other.requestZones["z"] = &requestZone{name: "z", text: "$a", size: 1, buckets: newBuckets()}
	if err := other.inheritLimits(old); err != nil || other.requestZones["z"].buckets != old.requestZones["z"].buckets {
		t.Error(err)
	}
	other.requestZones["z"].text = "$b"
	if err := other.inheritLimits(old); err == nil || err.Error() != `limit_req "z" uses the "$b" key while previously it used the "$a" key` {
		t.Error(err)
	}
}

func TestLimitWait(t *testing.T) {
	zone := &requestZone{rate: 500}
	for _, c := range []struct {
		excess, delay int64
		want          time.Duration
	}{{1000, 0, 2 * time.Second}, {1000, 1000, 0}, {3000, 2500, time.Second}} {
		l := requestLimit{zone: zone, delay: c.delay}
		if got := l.wait(c.excess); got != c.want {
			t.Error(c, got)
		}
	}
}
