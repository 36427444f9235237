package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestImportBroken: lineages that are not whole are left alone, each with its
// reason; the others are imported.
func TestImportBroken(t *testing.T) {
	dir := t.TempDir()
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range []string{"good.com", "empty.com", "garbage.com", "half.com", "mismatch.com", "dangling.com", "nameless.com"} {
		names := []string{name}
		if name == "nameless.com" {
			names = nil
		}
		text, _, err := bundle(key, issueStub(t, names, key.Public(), time.Now(), time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		files["renewal/"+name+".conf"] = "[renewalparams]\nauthenticator = nginx\nserver = https://ca.test/dir\n"
		files["live/"+name+"/fullchain.pem"], files["live/"+name+"/privkey.pem"] = string(text), string(text)
	}
	other, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := bundle(other, issueStub(t, []string{"x.com"}, other.Public(), time.Now(), time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	files["renewal/empty.com.conf"] = ""
	files["renewal/garbage.com.conf"] = "\x00\x01[[=\n"
	files["live/half.com/fullchain.pem"] = files["live/half.com/fullchain.pem"][:len(files["live/half.com/fullchain.pem"])-40]
	files["live/mismatch.com/privkey.pem"] = string(text)
	writeFiles(t, dir, files)
	link := filepath.Join(dir, "live/dangling.com/privkey.pem")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../archive/none.pem", link); err != nil {
		t.Fatal(err)
	}
	o := Options{DataDir: filepath.Join(dir, "data")}
	list, err := ImportCertbot(o, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"good.com": "", "empty.com": "is not a renewal file of Certbot", "garbage.com": "is not a renewal file of Certbot", "half.com": "bad end line",
		"mismatch.com": "key values mismatch", "dangling.com": "No such file or directory", "nameless.com": "its certificate has no names",
	}
	for _, i := range list {
		if reason := want[i.Name]; reason == "" && i.Error != "" || !strings.Contains(i.Error, reason) {
			t.Errorf("%s: %s", i.Name, i.Error)
		}
		delete(want, i.Name)
	}
	if len(want) > 0 {
		t.Errorf("nothing about %v", want)
	}
	if kept, err := List(nil, o); err != nil || len(kept) != 1 || kept[0].Names[0] != "good.com" {
		t.Errorf("%+v, %v", kept, err)
	}
}

// TestIssuersIn reads CAA records.
func TestIssuersIn(t *testing.T) {
	var answer []dns.RR
	for _, text := range []string{`a.com. CAA 0 issue "one.test; x=y"`, `a.com. CAA 0 ISSUE "two.test"`, `a.com. CAA 0 iodef "mailto:x"`, `a.com. CAA 0 issuewild ";"`} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		answer = append(answer, rr)
	}
	for wild, want := range map[bool]string{false: "one.test two.test", true: ""} {
		if allowed, some := issuersIn(answer, wild); !some || strings.Join(allowed, " ") != want {
			t.Errorf("%v: %q, %v", wild, allowed, some)
		}
	}
	if allowed, some := issuersIn(answer[:2], true); !some || len(allowed) != 2 {
		t.Errorf("without issuewild: %q", allowed)
	}
	if _, some := issuersIn(answer[2:3], false); some {
		t.Error("iodef allows nobody and forbids nobody")
	}
}

// TestListBroken: what is kept and cannot be read is shown with the reason.
func TestListBroken(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"certificates/a.com-1/certificate.pem": "-----BEGIN CERTIFICATE-----\nMII", "certificates/a.com-1/record.json": "{"})
	list, err := List(nil, Options{DataDir: dir})
	if err != nil || len(list) != 1 || list[0].Source != "none" || !strings.Contains(list[0].Error, "bad end line") || list[0].Describe(time.Now()) != "never" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRecordedAccount: a command renews by the account that the certificate was
// obtained by, as long as it is there.
func TestRecordedAccount(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"key.json": "{}"})
	a := &ACME{Email: "me@site.com"}
	o := order{names: []string{"site.com"}, from: authority{directory: "https://ca.test/dir", accountKey: filepath.Join(dir, "key.json"), email: "certbot@site.com"}}
	var r record
	r.order(&o)
	if from := a.recorded(&r); from.id() != o.from.id() {
		t.Errorf("%+v", from)
	}
	r.Account = filepath.Join(dir, "gone.json")
	if from := a.recorded(&r); from.directory != o.from.directory || from.accountKey != "" || from.email != "me@site.com" {
		t.Errorf("%+v", from)
	}
}
