package proxy

import (
	"net/netip"
	"testing"
)

func TestAddressErrors(t *testing.T) {
	testErrors(t, []errorCase{
		{`allow 1.2.3;`, `invalid parameter "1.2.3"`},
		{`deny 1.2.3.4/33;`, `invalid parameter "1.2.3.4/33"`},
		{`deny 1.2.3.4/;`, `invalid parameter "1.2.3.4/"`},
		{`deny fe80::1%eth0;`, `invalid parameter "fe80::1%eth0"`},
		{`deny ALL;`, `invalid parameter "ALL"`},
		{`deny 1.2.3.4/24;`, `low address bits of 1.2.3.4/24 are meaningless`},
		{`allow 2001:db8::1/32;`, `low address bits of 2001:db8::1/32 are meaningless`},
		{`deny 010.0.0.1;`, ``},
		{`set_real_ip_from 1.2.3.4/8;`, `low address bits of 1.2.3.4/8 are meaningless`},
		{`real_ip_header a; real_ip_header b;`, `"real_ip_header" directive is duplicate`},
	})
}

func TestAddresses(t *testing.T) {
	for s, want := range map[string]string{
		"1.2.3.4": "1.2.3.4:0", "1.2.3.4:5": "1.2.3.4:5", "01.002.3.4": "1.2.3.4:0", "::1": "[::1]:0", "[::1]": "[::1]:0", "[::1]:65535": "[::1]:65535",
		"": "", "1.2.3": "", "1.2.3.4.": "", "1.2.3.4.5": "", ".1.2.3.4": "", "256.1.1.1": "", "1.2.3.4:": "", "1.2.3.4:0": "", "1.2.3.4:65536": "",
		"1.2.3.4:a": "", "[::1": "", "[::1]a": "", "[::1]:": "", "[1.2.3.4]:5": "1.2.3.4:5", "::1%lo": "", "unix:": "", "a": "", "99999999999999999999.1.1.1": "",
	} {
		a, ok := parseAddrPort([]byte(s))
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%q: %s %v", s, a, ok)
		}
	}
	line := []byte("192.168.100.200:65535")
	if n := testing.AllocsPerRun(100, func() { parseAddrPort(line) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseAddrPort(f *testing.F) {
	for _, s := range []string{"1.2.3.4:5", "[::1]:80", "::ffff:1.2.3.4", "[", "]:", "1.2.3.4:99999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		a, ok := parseAddrPort(s)
		if !ok {
			return
		}
		if !a.Addr().IsValid() || a.Addr().Zone() != "" {
			t.Fatalf("%q is %s", s, a)
		}
		text := a.String()
		if a.Port() == 0 {
			text = a.Addr().String()
		}
		if again, ok := parseAddrPort([]byte(text)); !ok || again != a {
			t.Fatalf("%q is %s, then %s %v", s, a, again, ok)
		}
		if p, err := netip.ParseAddrPort(string(s)); err == nil && p.Port() != 0 && p != a {
			t.Fatalf("%q is %s, not %s", s, a, p)
		}
	})
}
