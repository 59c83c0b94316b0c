# SPDX-License-Identifier: GPL-2.0
"""The machine's own archive, proxies and certificates.

No address is written in this tree: what the machine's apt uses is used.
"""

import os
import re
import shutil
from pathlib import Path

from . import config
from .say import LabError, output

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
BUNDLE_FOR_APT = "/lab-certificates.crt"
SUITES = {"stable", "testing", "oldstable", "unstable", "sid", "bookworm",
          "trixie", "forky", "duke"}
PASSED_ENV = re.compile(
    r"^((http|https|ftp|all|no)_proxy|SSL_CERT_(FILE|DIR)|CURL_CA_BUNDLE|"
    r"GIT_SSL_CAINFO|REQUESTS_CA_BUNDLE|"
    r"CARGO_(HTTP|NET|REGISTRIES|REGISTRY|SOURCE)_.*)$", re.I)
KEPT_APT = re.compile(
    r"^Acquire::(http|https|ftp)(::[^\s\"]+)? |"
    r"^Acquire::(Check-Valid-Until|Check-Date|Retries|ForceIPv4|ForceIPv6) ")


def _plain(uri):
    """An address that apt can fetch from; resolves `mirror+file:` lists."""
    if uri.startswith("mirror+file:"):
        path = "/" + uri[len("mirror+file:"):].lstrip("/").rstrip("/")
        try:
            lines = open(path).read().split("\n")
        except OSError:
            return None
        for line in lines:
            line = line.split("#")[0].split()
            if line and re.match(r"(https?|file|copy):", line[0]):
                return line[0]
        return None
    return uri if re.match(r"(https?|file|copy):", uri) else None


def debian_mirror():
    """Address of the Debian archive in the machine's apt sources."""
    text = output(["apt-get", "indextargets", "--format",
                   "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
    if text is None:
        raise LabError("this machine has no working apt-get: the lab needs Debian 12 or 13")
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 3 or fields[2] != "main" or fields[1] not in SUITES:
            continue
        if "security" in fields[0] or "ports" in fields[0]:
            continue
        uri = _plain(fields[0])
        if uri:
            return uri.rstrip("/")
    raise LabError("the apt sources of this machine name no Debian archive (suite "
                   "bookworm or trixie, component main), from which the lab could install")


def apt_settings():
    """Lines of apt configuration worth having in a root: proxies, TLS, checks."""
    text = output(["apt-config", "dump"]) or ""
    lines = []
    for line in text.splitlines():
        if not KEPT_APT.match(line):
            continue
        detect = re.match(r'Acquire::(https?)::Proxy-Auto-?Detect "(.+)";', line)
        if detect:
            proxy = (output([detect[2], debian_mirror()]) or "").strip()
            if proxy and proxy != "DIRECT":
                lines.append(f'Acquire::{detect[1]}::Proxy "{proxy}";')
        else:
            lines.append(line)
    return lines


def certificate_files():
    """Files that apt's configuration and the environment name."""
    named = {BUNDLE}
    for line in apt_settings():
        match = re.match(r'Acquire::https?::(?:\S*::)?(?:CaInfo|SslCert|SslKey|CaPath) "(/.+)";', line, re.I)
        if match:
            named.add(match[1])
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE"):
        value = os.environ.get(name, "")
        if value.startswith("/"):
            named.add(value)
    return sorted(path for path in named if os.path.isfile(path))


def passed_environment():
    return {name: value for name, value in os.environ.items()
            if PASSED_ENV.match(name)}


def write_apt(directory):
    """Fills a directory that is mounted over /etc/apt of a root."""
    directory = Path(directory)
    uri = debian_mirror()
    for sub in ("apt.conf.d", "preferences.d", "sources.list.d", "trusted.gpg.d"):
        (directory / sub).mkdir(parents=True, exist_ok=True)
    for key in Path("/usr/share/keyrings").glob("debian-archive-*.gpg"):
        shutil.copy(key, directory / "trusted.gpg.d")
    (directory / "sources.list").write_text(
        f"deb {uri} {config.SUITE} main\n"
        f"deb {uri} {config.BACKPORTS} main\n")
    settings = apt_settings()
    if os.path.exists(BUNDLE):
        settings = [line.replace(f'"{BUNDLE}"', f'"{BUNDLE_FOR_APT}"') for line in settings]
        if not any(line.lower().startswith("acquire::https::cainfo ") for line in settings):
            settings.append(f'Acquire::https::CaInfo "{BUNDLE_FOR_APT}";')
    (directory / "apt.conf.d" / "90lab").write_text(
        'APT::Install-Recommends "false";\nAcquire::Languages "none";\n'
        'APT::Sandbox::User "root";\nDpkg::Use-Pty "false";\n'
        + "".join(line + "\n" for line in settings))
    # Of the backports only the kernel: a newer rustc gives other symbol names.
    (directory / "preferences.d" / "lab").write_text(
        f"Package: *\nPin: release n={config.BACKPORTS}\nPin-Priority: -1\n\n"
        f"Package: linux-*\nPin: release n={config.BACKPORTS}\nPin-Priority: 100\n")


def cargo_config():
    """The machine's Cargo configuration: file name -> content."""
    home = Path(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"))
    found = {}
    for name in ("config.toml", "config"):
        if (home / name).is_file():
            found["config.toml"] = (home / name).read_text()
            break
    return found
