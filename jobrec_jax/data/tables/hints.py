"""Words in names of files and columns that say what these are, in some languages.

A word of five letters or more stands for all that begin with it ('candidat' for candidates and
candidatos, 'mindest' for Mindestjahre); a shorter one for itself and its plural in s. Accents are
taken off.
"""

from collections.abc import Collection
import difflib
import re
import unicodedata


def _words(text: str) -> frozenset[str]:
  return frozenset(text.split())


CANDIDATES = _words(
    'candidat applicant person people user worker employee staff student member man men nurse '
    'talent resume cv engineer developer kandidat bewerber mitarbeiter pflege studierende employe '
    'salarie etudiant utilisateur trabajador empleado usuario estudiante pessoa lavorator utente '
    'werknemer sollicitant')
JOBS = _words(
    'job post position vacanc opening shift role project item task offer stelle dienst schicht '
    'angebot poste emploi offre mission oferta puesto empleo turno vaga lavoro vacature projekt '
    'proyecto')
LEAST = _words(
    'min minimum minimal required require needed need needs mindest gefordert benotigt verlangt '
    'requis exige minimo requerid exigid richiest vereist')
MOST = _words('max maximum maximal limit hochst maximo massim')
WISHED = _words(
    'wanted wants want wish wished desired preferred prefers prefer likes like offered wunsch '
    'gewunscht bevorzugt souhait prefere desead preferid')
EMPTY = _words(
    'of the a an in on for has is own per id my de des du der die das la le el los las y et und '
    'and to num number list')

APPLIED = 4  # the index of the first stage below that a candidate chose
STAGES = tuple(_words(words) for words in (
    'shown displayed impression exposed recommended gezeigt angezeigt affich mostrad',
    'viewed view seen ignored skipped gesehen angesehen vu vue visto',
    'clicked click opened open geklickt geoffnet clique ouvert clic abierto',
    'saved bookmarked liked like favorite gemerkt enregistre guardad',
    'applied apply application submitted requested pending beworben bewerbung postul candidat '
    'solicit inscri aplicad sollicit',
    'rejected reject declined refused denied unsuccessful abgelehnt absage refus rejet rechaz',
    'screened shortlist reviewed vorauswahl preselect',
    'interview vorstellung entretien entrevist gesprach',
    'offered offer angebot offre oferta',
    'hired hire accepted accept assigned selected placed joined eingestellt angenommen zugesagt '
    'embauch recrut contratad aceptad assunt'))
REJECTED, OFFERED = 5, 8
YES = frozenset(('true', 'yes', 'y', 't', '1', '1.0', 'ja', 'j', 'oui', 'si', 'sí', 'sim', 'hai'))
NO = frozenset(('false', 'no', 'n', 'f', '0', '0.0', 'nein', 'non', 'nao', 'não', 'nee'))
SHOWN = STAGES[0] | STAGES[1]
PREFERENCE = STAGES[2] | STAGES[3] | STAGES[4] | _words(
    'wanted wants want wish interest preference pref chose gefallt mag aime gusta rating')
QUALIFICATION = STAGES[6] | STAGES[7] | STAGES[8] | STAGES[9] | _words(
    'qualifi qual eligib suitab employer invited outcome result decision geeignet zusage ergebnis '
    'eignung retenu resultat apto seleccion resultado')
RATING = _words('rating score stars bewertung valoracion')
EXPOSURE = _words('exposure propensity probability wahrscheinlich')
TIME = _words(
    'time date day timestamp when created at round datum zeit tag runde fecha hora heure jour '
    'data ora giorno momento')
GROUP = _words(
    'group wave evening company region site city session batch team cohort employer branch firma '
    'unternehmen gruppe filiale abend entreprise groupe empresa equipo azienda')
PERSONAL = _words(
    'name email mail phone tel telephone address vorname nachname telefon adresse nom prenom '
    'nombre apellido url link photo')
UNKNOWN = frozenset(('-', '--', '?', '.', 'n/a', 'na', 'nan', 'null', '<na>', 'unknown', 'missing',
                     'tbd', 'n.d.', 'k.a.', 'k. a.', 'keine angabe', 'unbekannt', 'inconnu',
                     'desconocido', 'sin datos', 'onbekend'))
ANYTHING = frozenset(('any', 'anything', 'all', 'no preference', 'flexible', 'egal', 'beliebig',
                      'indifferent', 'peu importe', 'cualquiera', 'indifferente'))
LADDERS = tuple(tuple(words.split()) for words in (
    'trainee junior intermediate medior mid senior lead principal', 'none low medium high',
    'none beginner basic intermediate advanced expert native', 'school bachelor master phd'))


def plain(word: str) -> str:
  """Without case and accents."""
  parts = unicodedata.normalize('NFKD', word.casefold())
  return ''.join(c for c in parts if not unicodedata.combining(c))


def words_of(name: str) -> tuple[str, ...]:
  """The words of a name such as minYears, 'Min. years' or min_years; digits are none."""
  spaced = re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name)
  return tuple(re.findall(r'[^\W\d_]+', plain(spaced)))


def says(name: str, hints: Collection[str]) -> bool:
  """Whether a word of the name is among the hints."""
  return any(w in hints or w.removesuffix('s') in hints
             or any(len(h) >= 5 and w.startswith(h) for h in hints) for w in words_of(name))


def likeness(one: str, other: str) -> float:
  """How alike two names are, from 0 to 1: what is left of them without words such as 'required'."""
  a, b = core(one), core(other)
  return 2 * sum(any(_alike(x, y) for y in b) for x in a) / (len(a) + len(b)) if a and b else 0.0


def core(name: str) -> tuple[str, ...]:
  """The words of a name that say what it holds: of 'Mindestjahre' the years."""
  asking = LEAST | MOST | WISHED
  words = words_of(name)
  kept = []
  for word in words:
    if word in asking or word in EMPTY:
      continue
    start = max((h for h in asking if len(h) >= 5 and word.startswith(h)), key=len, default='')
    if not start or len(word) - len(start) >= 4:
      kept.append(word.removeprefix(start))
  return tuple(kept) or tuple(w for w in words if w not in EMPTY) or words


def _alike(one: str, other: str) -> bool:
  short, long = sorted((one.removesuffix('s'), other.removesuffix('s')), key=len)
  return short == long or (len(short) >= 4 and (
      difflib.SequenceMatcher(None, short, long).ratio() >= 0.8
      or (len(short) >= 5 and long.startswith(short))))
