"""What the course asks its models: the prompts of its sources, and idioms with a known continuation."""

# The four prompts of the tutorial (SYSTEMS A11): the comment says what the code should do.
TUTORIAL_PROMPTS = {
    "scatter plot": """# create some data
x = np.random.randn(100)
y = np.random.randn(100)

# create scatter plot with x, y
""",
    "data frame": """# create some data
x = np.random.randn(100)
y = np.random.randn(100)

# create dataframe from x and y
""",
    "groupby": """# dataframe with profession, income and name
df = pd.DataFrame({'profession': x, 'income': y, 'name': z})

# calculate the mean income per profession
""",
    "random forest": """# import random forest regressor from scikit-learn
from sklearn.ensemble import RandomForestRegressor

# fit random forest model with 300 estimators on X, y:
""",
}

# What the book asks its model for (SYSTEMS C11).
BOOK_PROMPTS = {
    "rectangle": '''def area_of_rectangle(a: float, b: float):
    """Return the area of the rectangle with these sides."""''',
    "links": '''def get_urls_from_html(html):
    """Get all links of an HTML page."""''',
    "mean in NumPy": """# a function in native Python:
def mean(a):
    return sum(a) / len(a)

# the same function using numpy:
import numpy as np
def mean(a):""",
    "classifier of 20 trees": """X = np.random.randn(100, 100)
y = np.random.randint(0, 2, 100)

# fit a random forest classifier with 20 estimators""",
}

# What the blog asks its model for (SYSTEMS E9).
BLOG_PROMPTS = {
    "file size": '''def get_file_size(path):
    """Return the size of a file in bytes."""''',
    "unit test": """def is_even(value):
    \"\"\"Return True if the value is even.\"\"\"
    return value % 2 == 0

# unit tests for is_even:
assert""",
    "classifier": """from transformers import AutoModelForSequenceClassification

# load a BERT classifier with two labels
model =""",
}

# (kind, prompt, continuation): idioms that every data-science script shares.
IDIOMS = (
    ("alias", "import pandas as", " pd"),
    ("alias", "import numpy as", " np"),
    ("alias", "import matplotlib.pyplot as", " plt"),
    ("alias", "import seaborn as", " sns"),
    ("import", "from sklearn.model_selection import", " train_test_split"),
    ("import", "import pandas as pd\nimport matplotlib.", "pyplot as plt"),
    ("import", "from sklearn.linear_model import", " LogisticRegression"),
    ("import", "import numpy as np\n\nfrom", " sklearn"),
    ("call", "import matplotlib.pyplot as plt\n\nfig, ax =", " plt.subplots("),
    ("call", "import numpy as np\n\nrng = np.random.", "default_rng("),
    ("call", "ax.set_xlabel('x')\nax.set_", "ylabel("),
    ("call", "X, y = make_classification(", "n_"),
    ("call", "X_train, X_test, y_train, y_test =", " train_test_split("),
    ("call", "clf.fit(X_train,", " y_train)"),
    ("syntax", "for i in", " range("),
    ("syntax", "if __name__ ==", ' "__main__"'),
    ("syntax", "def __init__(", "self"),
    ("syntax", "class Model:\n    def fit(self, X, y):\n        return", " self"),
)
